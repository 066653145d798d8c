package main

import (
	"bufio"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	adminv1 "mamlog/admin/v1"
	"mamlog/admin/v1/adminv1connect"
)

func newEraseCommand(a *app) *cobra.Command {
	var yes bool
	c := &cobra.Command{
		Use:   "erase JID",
		Short: "Erase all that is stored of a user",
		Long: `Erase all that is stored of a user: the archive with its conversations, what is in
the preferences now and ever was, the roster, and a retention of their own. What
remains is that they had these, when each changed and by whom, and a record of the
erasure with the numbers of what is gone: 'mamlog audit --owner JID' shows it. What
they sent lies in the archives of others too, and stays there. An account of theirs
stays; 'mamlog user delete' erases it and all of this.

When the command returns, no file of the stores has any of it. For that it reads the
whole log of the host and rewrites much of it, which takes minutes for a large one;
the server goes on serving. On a terminal it asks before. Backups are not touched.`,
		Example:           "  mamlog erase juliet@test.example --yes",
		Args:              exactly("JID"),
		ValidArgsFunction: a.completeUser,
		RunE: func(cmd *cobra.Command, args []string) error {
			if !yes && isTerminal(a.in) {
				fmt.Fprintf(a.err, "Erase all that is stored of %s? Nothing brings it back. [y/N] ", harmless(args[0]))
				answer, _ := bufio.NewReader(a.in).ReadString('\n')
				if s := strings.ToLower(strings.TrimSpace(answer)); s != "y" && s != "yes" {
					return &failure{exitFailed, errors.New("nothing was erased")}
				}
			}
			return a.withClient(cmd.Context(), offline{owner: args[0]}, func(c adminv1connect.AdminServiceClient) error {
				r, err := c.Erase(cmd.Context(), request(&adminv1.EraseRequest{Owner: args[0]}))
				if err != nil {
					return err
				}
				e := r.Msg.GetErased()
				fmt.Fprintf(a.out, "erased %s: %s\n", harmless(e.GetOwner()), erasedCounts(e))
				return nil
			})
		},
	}
	c.Flags().BoolVarP(&yes, "yes", "y", false, "don't ask")
	return c
}
