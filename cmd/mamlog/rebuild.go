package main

import (
	"fmt"

	"github.com/spf13/cobra"

	adminv1 "mamlog/admin/v1"
	"mamlog/admin/v1/adminv1connect"
)

func newRebuildCommand(a *app) *cobra.Command {
	r := &adminv1.RebuildRequest{}
	c := &cobra.Command{
		Use:   "rebuild",
		Short: "Make the projections anew from the log",
		Long: `Make the projections anew from the log, which is the only truth: archives,
conversations, preferences, accounts, rosters. A running server answers from the old
ones meanwhile. Projections that can't be opened any more are deleted first; for
that the server has to be stopped.`,
		Example: "  mamlog rebuild\n  mamlog rebuild --store archive",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.withClient(cmd.Context(), offline{stores: true, store: r.Store, remake: true}, func(c adminv1connect.AdminServiceClient) error {
				stream, err := c.Rebuild(cmd.Context(), request(r))
				if err != nil {
					return err
				}
				var p *progress
				return receive(stream, func(m *adminv1.RebuildResponse) error {
					if p == nil {
						p = a.newProgress("rebuild " + m.GetStore())
					}
					if !m.GetDone() {
						p.at(int(m.GetRecords()))
						return nil
					}
					p.done()
					p = nil
					fmt.Fprintf(a.out, "%s: rebuilt from %d records\n", m.GetStore(), m.GetRecords())
					return nil
				})
			})
		},
	}
	c.Flags().Var((*textFlag)(&r.Store), "store", "only the store `NAME`: main, or an archive_store")
	c.RegisterFlagCompletionFunc("store", a.completeStore)
	return c
}

// completeStore completes the names of stores.
func (a *app) completeStore(*cobra.Command, []string, string) (names []string, _ cobra.ShellCompDirective) {
	c, err := a.loadConfig()
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	names = append(names, "main")
	for _, s := range c.Stores() {
		names = append(names, s.Name)
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}
