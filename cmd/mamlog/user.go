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

func newUserCommand(a *app) *cobra.Command {
	return parent(&cobra.Command{
		Use:   "user",
		Short: "Add, list and delete accounts",
		Long:  "Add, list and delete the accounts of the embedded XMPP host.",
	}, newUserAddCommand(a), newUserPasswdCommand(a), newUserListCommand(a), newUserDeleteCommand(a))
}

func newUserAddCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "add JID",
		Short: "Add an account",
		Long: `Add an account. The password is the first line of standard input; on a terminal it
is asked for. Only salted hashes of it are stored.

Where no server runs and there is no store in data_dir yet, it makes one and says
where: a relative data_dir counts from the working directory.`,
		Example: `  mamlog user add juliet@test.example
  echo "$PASSWORD" | mamlog user add juliet@test.example`,
		Args: exactly("JID"),
		RunE: func(cmd *cobra.Command, args []string) error {
			password, err := a.readPassword(args[0])
			if err != nil {
				return err
			}
			return a.withClient(cmd.Context(), offline{create: true}, func(c adminv1connect.AdminServiceClient) error {
				r, err := c.AddUser(cmd.Context(), request(&adminv1.AddUserRequest{Jid: args[0], Password: password}))
				if err == nil {
					fmt.Fprintf(a.out, "added %s\n", harmless(r.Msg.GetJid()))
				}
				return err
			})
		},
	}
}

func newUserPasswdCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "passwd JID",
		Short: "Set another password",
		Long: `Set another password. It is the first line of standard input; on a terminal it is
asked for. Sessions that are logged in stay so.`,
		Example:           `  echo "$PASSWORD" | mamlog user passwd juliet@test.example`,
		Args:              exactly("JID"),
		ValidArgsFunction: a.completeUser,
		RunE: func(cmd *cobra.Command, args []string) error {
			password, err := a.readPassword(args[0])
			if err != nil {
				return err
			}
			return a.withClient(cmd.Context(), offline{}, func(c adminv1connect.AdminServiceClient) error {
				r, err := c.SetPassword(cmd.Context(), request(&adminv1.SetPasswordRequest{Jid: args[0], Password: password}))
				if err == nil {
					fmt.Fprintf(a.out, "set the password of %s\n", harmless(r.Msg.GetJid()))
				}
				return err
			})
		},
	}
}

func newUserListCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use:     "list [HOST]",
		Short:   "List the accounts, one a line",
		Long:    "List the accounts of all hosts or of one, one a line and in order.",
		Example: "  mamlog user list\n  mamlog user list test.example | wc -l",
		Args:    cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			r := &adminv1.ListUsersRequest{}
			if len(args) > 0 && args[0] == "" {
				return errors.New("the HOST is empty; leave it out for all hosts")
			}
			if len(args) > 0 {
				r.Host = args[0]
			}
			return a.withClient(cmd.Context(), offline{}, func(c adminv1connect.AdminServiceClient) error {
				stream, err := c.ListUsers(cmd.Context(), request(r))
				if err != nil {
					return err
				}
				out := bufio.NewWriter(a.out)
				err = receive(stream, func(m *adminv1.ListUsersResponse) error {
					for _, j := range m.GetJids() {
						fmt.Fprintln(out, harmless(j))
					}
					return nil
				})
				return errors.Join(err, out.Flush())
			})
		},
	}
}

func newUserDeleteCommand(a *app) *cobra.Command {
	var yes bool
	c := &cobra.Command{
		Use:   "delete JID",
		Short: "Delete an account",
		Long: `Delete an account and end its sessions. Its archive is hidden from then on, also
from a later account of the same name, and erased soon after, with all that 'mamlog
erase' names: the running server does it at once, otherwise it is done when a server
starts. On a terminal it asks before.`,
		Example:           "  mamlog user delete juliet@test.example\n  mamlog user delete juliet@test.example --yes",
		Args:              exactly("JID"),
		ValidArgsFunction: a.completeUser,
		RunE: func(cmd *cobra.Command, args []string) error {
			if !yes && isTerminal(a.in) {
				fmt.Fprintf(a.err, "Delete %s? Its archive is erased. [y/N] ", harmless(args[0]))
				answer, _ := bufio.NewReader(a.in).ReadString('\n')
				if s := strings.ToLower(strings.TrimSpace(answer)); s != "y" && s != "yes" {
					return &failure{exitFailed, errors.New("nothing was deleted")}
				}
			}
			return a.withClient(cmd.Context(), offline{}, func(c adminv1connect.AdminServiceClient) error {
				r, err := c.DeleteUser(cmd.Context(), request(&adminv1.DeleteUserRequest{Jid: args[0]}))
				if err == nil {
					fmt.Fprintf(a.out, "deleted %s\n", harmless(r.Msg.GetJid()))
				}
				return err
			})
		},
	}
	c.Flags().BoolVarP(&yes, "yes", "y", false, "don't ask")
	return c
}

// exactly one argument, and what it is.
func exactly(what string) cobra.PositionalArgs {
	return func(_ *cobra.Command, args []string) error {
		switch len(args) {
		case 0:
			return fmt.Errorf("the %s is missing", what)
		case 1:
			return nil
		}
		return fmt.Errorf("too many arguments: only one %s is taken, and %q follows it", what, args[1])
	}
}
