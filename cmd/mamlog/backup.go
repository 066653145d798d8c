package main

import (
	"fmt"
	"path/filepath"

	"github.com/spf13/cobra"

	adminv1 "mamlog/admin/v1"
	"mamlog/admin/v1/adminv1connect"
)

func newBackupCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "backup DIR",
		Short: "Copy all stores to a new directory, while the server runs",
		Long: `Copy the logs of all stores, and the audit history with the key that signs it, to the
new directory DIR on the server's machine. A running server goes on meanwhile. All that
was acknowledged before is in the copy, and what a message refers to is in it too.

On the same file system the copy is made of hard links and takes hardly any space, until
the log has dropped what it shares; it then doesn't help against a broken disk: copy it
elsewhere, as with rsync --link-dest, which copies only files that are new.

What is erased later stays in the backups that were made before. Who can read a backup
can read all messages, and can sign in the server's name. That it was made is in the
audit history.

'mamlog restore DIR' puts it in the place of a lost data directory.`,
		Example: "  mamlog backup /var/backups/mamlog-2026-11-27",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			dir, err := filepath.Abs(args[0])
			if err != nil {
				return err
			}
			return a.withClient(cmd.Context(), offline{stores: true, audit: true}, func(c adminv1connect.AdminServiceClient) error {
				stream, err := c.Backup(cmd.Context(), request(&adminv1.BackupRequest{Dir: dir}))
				if err != nil {
					return err
				}
				return receive(stream, func(m *adminv1.BackupResponse) error {
					switch {
					case m.GetSkipped():
						fmt.Fprintf(a.out, "%s: in memory only, not in the backup\n", m.GetStore())
					case m.GetLast() == "":
						fmt.Fprintf(a.out, "%s: copied, no event in it\n", m.GetStore())
					default:
						fmt.Fprintf(a.out, "%s: copied, up to %s of %s at least\n", m.GetStore(), m.GetLast(), stamp(m.GetLastAt().AsTime()))
					}
					return nil
				})
			})
		},
	}
}
