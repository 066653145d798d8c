package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	adminv1 "mamlog/admin/v1"
	"mamlog/admin/v1/adminv1connect"
	"mamlog/cmd/mamlog/config"
	"mamlog/log"
)

func newPrefsHistoryCommand(a *app) *cobra.Command {
	var asJSON bool
	var at timeFlag
	c := &cobra.Command{
		Use:   "history JID",
		Short: "Show every change of a user's preferences",
		Long: `Show every change of a user's preferences: when, by whom, why, and what was before
(-) and after (+). Changes of the host's policy, which governs users who have set
none, stand between them. Oldest first.

With --at, show what was in force at that time, and which event had set it. A date
is its first instant.

--json prints one object a line: id, time, kind (preferences or policy), actor,
cause, before and after (null where the host's policy applied).`,
		Example: `  mamlog prefs history juliet@test.example
  mamlog prefs history juliet@test.example --at 2026-11-22T20:00:00Z
  mamlog prefs history juliet@test.example --json | jq -r 'select(.cause == "operator") | .actor'`,
		Args:              exactly("JID"),
		ValidArgsFunction: a.completeUser,
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withClient(cmd.Context(), offline{owner: args[0]}, func(c adminv1connect.AdminServiceClient) error {
				if at.set {
					return a.printInForce(cmd.Context(), c, &adminv1.GetPreferencesRequest{Owner: args[0], At: at.timestamp()}, asJSON)
				}
				stream, err := c.ListPreferenceHistory(cmd.Context(), request(&adminv1.ListPreferenceHistoryRequest{Owner: args[0]}))
				if err != nil {
					return err
				}
				out := bufio.NewWriter(a.out)
				err = receive(stream, func(r *adminv1.ListPreferenceHistoryResponse) error {
					if asJSON {
						return writeJSON(out, entryJSON(r.GetEntry()))
					}
					printEntry(out, r.GetEntry())
					return nil
				})
				return errors.Join(err, out.Flush())
			})
		},
	}
	c.Flags().Var(&at, "at", "show what was in force at this time")
	c.Flags().BoolVar(&asJSON, "json", false, "print one JSON object a line")
	return c
}

func printEntry(w io.Writer, e *adminv1.HistoryEntry) {
	what, before, after := "preferences", "", ""
	if p := e.GetPolicy(); p != nil {
		what, before, after = "policy     ", policyWords(p.GetBefore()), policyWords(p.GetAfter())
	} else {
		p := e.GetPreferences()
		before, after = preferenceWords(p.GetBefore()), preferenceWords(p.GetAfter())
	}
	fmt.Fprintf(w, "%s  %s  %s  %s\n  - %s\n  + %s\n", clock(e.GetTime().AsTime()), what, who(e), e.GetId(), before, after)
}

func preferenceWords(p *log.Preferences) string {
	if p == nil {
		return "the host's policy applies"
	}
	return fmt.Sprintf("default %s; always %s; never %s", defaultName(p.GetDefault()), jidList(p.GetAlways()), jidList(p.GetNever()))
}

func policyWords(p *log.Policy) string {
	if p == nil {
		return "nothing"
	}
	words := "default " + defaultName(p.GetDefault())
	if p.GetSmartEnable() {
		words += ", from the first use of the archive on"
	}
	words += "; expires after " + config.FormatExpiry(time.Duration(p.GetExpiresAfterSeconds())*time.Second)
	words += quotaWords(p.GetQuotaItems(), p.GetQuotaBytes())
	if n := p.GetDontArchiveNamespaces(); len(n) > 0 {
		words += "; not " + harmless(strings.Join(n, ", "))
	}
	return words
}

// quotaWords go on in a line; none where there is no quota.
func quotaWords(items, bytes uint64) (words string) {
	if items > 0 {
		words += "; at most " + config.FormatQuotaItems(items) + " messages"
	}
	if bytes > 0 {
		words += "; at most " + config.FormatQuotaBytes(bytes)
	}
	return words
}

// jsonEntry is one line of --json. Scripts depend on its fields.
type jsonEntry struct {
	ID     string `json:"id"`
	Time   string `json:"time"`
	Kind   string `json:"kind"`
	Host   string `json:"host,omitempty"`
	Actor  string `json:"actor"`
	Cause  string `json:"cause"`
	Before any    `json:"before"`
	After  any    `json:"after"`
}

type jsonPreferences struct {
	Default string   `json:"default"`
	Always  []string `json:"always"`
	Never   []string `json:"never"`
}

// jsonPolicy has the names of the configuration's options.
type jsonPolicy struct {
	Default               string   `json:"default_archive_policy"`
	SmartEnable           bool     `json:"mam_smart_enable"`
	ExpiresAfter          string   `json:"archive_expires_after"`
	DontArchiveNamespaces []string `json:"dont_archive_namespaces"`
	QuotaItems            string   `json:"archive_quota_items"`
	QuotaBytes            string   `json:"archive_quota_bytes"`
}

func entryJSON(e *adminv1.HistoryEntry) *jsonEntry {
	if e == nil {
		return nil
	}
	j := &jsonEntry{ID: e.GetId(), Time: stamp(e.GetTime().AsTime())}
	if p := e.GetPolicy(); p != nil {
		j.Kind, j.Host, j.Actor, j.Cause = "policy", p.GetHost(), "mamlog", "configuration"
		j.Before, j.After = policyJSON(p.GetBefore()), policyJSON(p.GetAfter())
		return j
	}
	p := e.GetPreferences()
	j.Kind, j.Actor, j.Cause = "preferences", p.GetActor(), causeName(p.GetCause())
	j.Before, j.After = preferencesJSON(p.GetBefore()), preferencesJSON(p.GetAfter())
	return j
}

func preferencesJSON(p *log.Preferences) *jsonPreferences {
	if p == nil {
		return nil
	}
	return &jsonPreferences{defaultName(p.GetDefault()), list(p.GetAlways()), list(p.GetNever())}
}

func policyJSON(p *log.Policy) *jsonPolicy {
	if p == nil {
		return nil
	}
	return &jsonPolicy{
		defaultName(p.GetDefault()), p.GetSmartEnable(),
		config.FormatExpiry(time.Duration(p.GetExpiresAfterSeconds()) * time.Second), list(p.GetDontArchiveNamespaces()),
		config.FormatQuotaItems(p.GetQuotaItems()), config.FormatQuotaBytes(p.GetQuotaBytes()),
	}
}

// list is never null in JSON.
func list(s []string) []string {
	if s == nil {
		return []string{}
	}
	return s
}
