package main

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"

	adminv1 "mamlog/admin/v1"
	"mamlog/admin/v1/adminv1connect"
)

func newExpireCommand(a *app) *cobra.Command {
	var dry, asJSON bool
	c := &cobra.Command{
		Use:   "expire [HOST]",
		Short: "Delete what is not to be kept, or tell what would go",
		Long: `Delete now what the server would delete at the next archive_cleanup_interval, of all
hosts or of one: messages older than archive_expires_after, as whole time buckets;
those older than a retention of a user's own; and the oldest of archives that exceed
their quota. It tells what that is, for which it looks into every archive. With
--dry-run it only tells.

What is older than its retention can't be queried any more, deleted or not.`,
		Example: "  mamlog expire --dry-run\n  mamlog expire test.example",
		Args:    cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			r := &adminv1.ExpireRequest{DryRun: dry}
			if len(args) > 0 {
				if r.Host = args[0]; r.Host == "" {
					return fmt.Errorf("the HOST is empty; leave it out for all hosts")
				}
			}
			return a.withClient(cmd.Context(), offline{stores: true, audit: true}, func(c adminv1connect.AdminServiceClient) error {
				res, err := c.Expire(cmd.Context(), request(r))
				if err != nil {
					return err
				}
				for _, e := range res.Msg.GetHosts() {
					if asJSON {
						err = writeJSON(a.out, expiringJSON(e))
					} else {
						printExpiring(a.out, e, dry)
					}
					if err != nil {
						return err
					}
				}
				return nil
			})
		},
	}
	c.Flags().BoolVarP(&dry, "dry-run", "n", false, "delete nothing")
	c.Flags().BoolVar(&asJSON, "json", false, "print one JSON object a host")
	return c
}

func printExpiring(w io.Writer, e *adminv1.Expiring, dry bool) {
	verb := "deleted"
	if dry {
		verb = "would delete"
	}
	line := func(why string, n *adminv1.Amount) {
		fmt.Fprintf(w, "  %-28s %d messages, %d bytes\n", why, n.GetMessages(), n.GetBytes())
	}
	fmt.Fprintf(w, "%s: %s messages of %d archives\n", e.GetHost(), verb, e.GetArchives())
	line("older than the retention", e.GetExpired())
	line("older than a user's own", e.GetOwn())
	line("more than a quota", e.GetQuota())
}

// jsonExpiring is one line of --json. Scripts depend on its fields.
type jsonExpiring struct {
	Host     string     `json:"host"`
	Archives uint64     `json:"archives"`
	Expired  jsonAmount `json:"expired"`
	Own      jsonAmount `json:"own"`
	Quota    jsonAmount `json:"quota"`
}

type jsonAmount struct {
	Messages uint64 `json:"messages"`
	Bytes    uint64 `json:"bytes"`
}

func expiringJSON(e *adminv1.Expiring) jsonExpiring {
	amount := func(n *adminv1.Amount) jsonAmount { return jsonAmount{n.GetMessages(), n.GetBytes()} }
	return jsonExpiring{e.GetHost(), e.GetArchives(), amount(e.GetExpired()), amount(e.GetOwn()), amount(e.GetQuota())}
}
