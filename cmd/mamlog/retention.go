package main

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/proto"

	adminv1 "mamlog/admin/v1"
	"mamlog/admin/v1/adminv1connect"
	"mamlog/cmd/mamlog/config"
	"mamlog/log"
)

func newRetentionCommand(a *app) *cobra.Command {
	return parent(&cobra.Command{
		Use:   "retention",
		Short: "Show and set how much of one user is kept",
		Long: `Show and set how much of one user's archive is kept: for how long, and up to which
quotas. Without it the options of the host hold: archive_expires_after,
archive_quota_items and archive_quota_bytes.`,
	}, newRetentionShowCommand(a), newRetentionSetCommand(a))
}

func newRetentionShowCommand(a *app) *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use:               "show JID",
		Short:             "Show what is kept of a user",
		Long:              "Show what is kept of a user's archive, and what of it was set for them alone. That\nsomebody asked is recorded.",
		Example:           "  mamlog retention show juliet@test.example",
		Args:              exactly("JID"),
		ValidArgsFunction: a.completeUser,
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withClient(cmd.Context(), offline{owner: args[0]}, func(c adminv1connect.AdminServiceClient) error {
				res, err := c.GetRetention(cmd.Context(), request(&adminv1.GetRetentionRequest{Owner: args[0]}))
				if err != nil {
					return err
				}
				return a.printRetention(res.Msg.GetInForce(), res.Msg.GetOwn(), asJSON)
			})
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print one JSON object")
	return c
}

func newRetentionSetCommand(a *app) *cobra.Command {
	var asJSON bool
	var expires, items, bytes string
	c := &cobra.Command{
		Use:   "set JID",
		Short: "Set what is kept of a user",
		Long: `Set what is kept of a user's archive in the place of the host's options. What no
flag names stays as it is; "host" lets the host's option hold again.

Messages of nobody are kept for longer than the host's, because these leave the
disk all at once. What is too old by then can't be queried any more when the command
returns; what exceeds a quota goes within seconds, oldest first. Who set what is
recorded.`,
		Example: `  mamlog retention set juliet@test.example --expires-after 1d
  mamlog retention set juliet@test.example --quota-items 10000 --quota-bytes 20MiB
  mamlog retention set juliet@test.example --expires-after host --quota-items none`,
		Args:              exactly("JID"),
		ValidArgsFunction: a.completeUser,
		RunE: func(cmd *cobra.Command, args []string) error {
			r := &adminv1.SetRetentionRequest{Owner: args[0]}
			for _, f := range []struct {
				name, value string
				read        func(string) error
			}{
				{"expires-after", expires, func(s string) (err error) { r.ExpiresAfter, err = readExpiry(s); return err }},
				{"quota-items", items, func(s string) (err error) { r.QuotaItems, err = readQuota(s, config.ParseQuotaItems); return err }},
				{"quota-bytes", bytes, func(s string) (err error) { r.QuotaBytes, err = readQuota(s, config.ParseQuotaBytes); return err }},
			} {
				if !cmd.Flags().Changed(f.name) {
					continue
				}
				if err := f.read(f.value); err != nil {
					return fmt.Errorf("--%s: %w", f.name, err)
				}
			}
			if r.ExpiresAfter == nil && r.QuotaItems == nil && r.QuotaBytes == nil {
				return fmt.Errorf("nothing is to be set; name at least one of --expires-after, --quota-items and --quota-bytes")
			}
			return a.withClient(cmd.Context(), offline{owner: args[0]}, func(c adminv1connect.AdminServiceClient) error {
				res, err := c.SetRetention(cmd.Context(), request(r))
				if err != nil {
					return err
				}
				return a.printRetention(res.Msg.GetInForce(), res.Msg.GetOwn(), asJSON)
			})
		},
	}
	c.Flags().StringVar(&expires, "expires-after", "", "`TIME` as archive_expires_after takes it, as in 1d, or host")
	c.Flags().StringVar(&items, "quota-items", "", "`NUMBER` of messages, none, or host")
	c.Flags().StringVar(&bytes, "quota-bytes", "", "`SIZE` of the stanzas as in 20MiB, none, or host")
	c.Flags().BoolVar(&asJSON, "json", false, "print one JSON object")
	return c
}

func readExpiry(s string) (*adminv1.Setting, error) {
	if s == "host" {
		return &adminv1.Setting{}, nil
	}
	d, err := config.ParseDuration(s)
	return &adminv1.Setting{Value: proto.Uint64(uint64(d / time.Second))}, err
}

func readQuota(s string, parse func(string) (uint64, error)) (*adminv1.Setting, error) {
	if s == "host" {
		return &adminv1.Setting{}, nil
	}
	n, err := parse(s)
	return &adminv1.Setting{Value: &n}, err
}

// jsonRetention is what --json prints. Scripts depend on its fields.
type jsonRetention struct {
	ExpiresAfter string   `json:"expires_after"`
	QuotaItems   string   `json:"quota_items"`
	QuotaBytes   string   `json:"quota_bytes"`
	Own          []string `json:"own"` // which of them were set for the user
}

func (a *app) printRetention(r, own *log.Retention, asJSON bool) error {
	expiry := config.FormatExpiry(time.Duration(r.GetExpiresAfterSeconds()) * time.Second)
	items, bytes := config.FormatQuotaItems(r.GetQuotaItems()), config.FormatQuotaBytes(r.GetQuotaBytes())
	if asJSON {
		set := []string{}
		for _, f := range []struct {
			name string
			own  bool
		}{{"expires_after", own.GetExpiresAfterSeconds() != 0}, {"quota_items", own != nil && own.QuotaItems != nil}, {"quota_bytes", own != nil && own.QuotaBytes != nil}} {
			if f.own {
				set = append(set, f.name)
			}
		}
		return writeJSON(a.out, jsonRetention{expiry, items, bytes, set})
	}
	whose := func(own bool) string {
		if own {
			return "the user's own"
		}
		return "the host's"
	}
	fmt.Fprintf(a.out, "expires after  %s (%s)\nquota items    %s (%s)\nquota bytes    %s (%s)\n",
		expiry, whose(own != nil && own.ExpiresAfterSeconds != nil), items, whose(own != nil && own.QuotaItems != nil), bytes, whose(own != nil && own.QuotaBytes != nil))
	return nil
}

// retentionWords say in one line what was set for a user.
func retentionWords(r *log.Retention) string {
	var words []string
	if r != nil && r.ExpiresAfterSeconds != nil {
		words = append(words, "expires after "+config.FormatDuration(time.Duration(r.GetExpiresAfterSeconds())*time.Second))
	}
	if r != nil && r.QuotaItems != nil {
		words = append(words, "quota of messages: "+quota(r.GetQuotaItems(), strconv.FormatUint(r.GetQuotaItems(), 10)))
	}
	if r != nil && r.QuotaBytes != nil {
		words = append(words, "quota of bytes: "+quota(r.GetQuotaBytes(), config.FormatQuotaBytes(r.GetQuotaBytes())))
	}
	if len(words) == 0 {
		return "the host's options hold"
	}
	return strings.Join(words, "; ")
}

func quota(n uint64, words string) string {
	if n == 0 {
		return "none"
	}
	return words
}
