package main

import (
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	adminv1 "mamlog/admin/v1"
	"mamlog/admin/v1/adminv1connect"
)

func newPolicyCommand(a *app) *cobra.Command {
	var at timeFlag
	var asJSON bool
	c := &cobra.Command{
		Use:   "policy JID PEER",
		Short: "Tell whether messages with somebody are archived, or were at a time",
		Long: `Tell what a user's preferences and the host's policy say about messages with PEER, a
bare or full JID, now or with --at at that time: archived or not, which entry of a
list or which default says so, and which event had set it. A date is its first
instant.

Where the default is roster it depends on whether PEER was a contact. For hosts
that mamlog serves itself that is looked up in the log; the roster of a host on a
link is at its XMPP server, which says so with each message, so that it is not
known here.

Before all that a message has to be worth archiving: see 'Archived' in
ARCHITECTURE.md. That somebody asked is recorded.`,
		Example: `  mamlog policy juliet@test.example romeo@test.example
  mamlog policy juliet@test.example romeo@test.example --at 2026-11-22T20:00:00Z`,
		Args:              exactlyTwo("JID", "PEER"),
		ValidArgsFunction: a.completeUser,
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withClient(cmd.Context(), offline{owner: args[0]}, func(c adminv1connect.AdminServiceClient) error {
				res, err := c.Decide(cmd.Context(), request(&adminv1.DecideRequest{Owner: args[0], Peer: args[1], At: at.timestamp()}))
				if err != nil {
					return err
				}
				if asJSON {
					return writeJSON(a.out, decisionJSON(res.Msg.GetDecision()))
				}
				printDecision(a.out, res.Msg.GetDecision(), args[1])
				return nil
			})
		},
	}
	c.Flags().Var(&at, "at", "tell what was decided at this time")
	c.Flags().BoolVar(&asJSON, "json", false, "print one JSON object")
	return c
}

func printDecision(w io.Writer, d *adminv1.Decision, peer string) {
	verdict := map[adminv1.Verdict]string{
		adminv1.Verdict_VERDICT_ARCHIVED:     "archived",
		adminv1.Verdict_VERDICT_NOT_ARCHIVED: "not archived",
		adminv1.Verdict_VERDICT_IF_CONTACT:   "archived if " + harmless(peer) + " is a contact",
	}[d.GetVerdict()]
	fmt.Fprintf(w, "verdict  %s\nbecause  %s\n", verdict, ruleWords(d, peer))
	printPreferences(w, d.GetInForce())
}

// ruleWords say what decided.
func ruleWords(d *adminv1.Decision, peer string) string {
	whose := "the host's policy"
	if d.GetInForce().GetOwn() {
		whose = "the user's preferences"
	}
	switch d.GetRule() {
	case adminv1.Rule_RULE_ALWAYS:
		return harmless(d.GetEntry()) + " is in the list always of " + whose
	case adminv1.Rule_RULE_NEVER:
		return harmless(d.GetEntry()) + " is in the list never of " + whose
	case adminv1.Rule_RULE_DEFAULT:
		return "that is the default of " + whose
	case adminv1.Rule_RULE_SELF:
		return "the default of " + whose + " is roster, and one's own account counts as a contact"
	case adminv1.Rule_RULE_SMART_ENABLE:
		return "the archive was not used yet (mam_smart_enable)"
	case adminv1.Rule_RULE_CONTACT:
		words := "the default of " + whose + " is roster, and " + harmless(peer)
		switch {
		case !d.GetRosterHere() && d.GetVerdict() == adminv1.Verdict_VERDICT_ARCHIVED:
			return words + " was a contact, as the XMPP server said"
		case !d.GetRosterHere():
			return words + " may be a contact: the roster is at the XMPP server, and not known here"
		}
		if words += " was no contact"; d.GetVerdict() == adminv1.Verdict_VERDICT_ARCHIVED {
			words = strings.TrimSuffix(words, "no contact") + "a contact"
		}
		if d.GetContactEvent() == "" {
			return words
		}
		return words + ", since " + clock(d.GetContactSince().AsTime()) + " (event " + d.GetContactEvent() + ")"
	}
	return "of a rule that this version does not know"
}

// jsonDecision is what --json prints. Scripts depend on its fields.
type jsonDecision struct {
	Verdict      string           `json:"verdict"` // archived, not_archived or if_contact
	Rule         string           `json:"rule"`    // always, never, default, contact, self or smart_enable
	Entry        *string          `json:"entry"`   // of a list; null: none
	Preferences  *jsonPreferences `json:"preferences"`
	Own          bool             `json:"own"`
	By           *jsonEntry       `json:"by"`
	ContactEvent *string          `json:"contact_event"` // null: not known, or none
	RosterHere   bool             `json:"roster_here"`
}

func decisionJSON(d *adminv1.Decision) *jsonDecision {
	if d == nil {
		return nil
	}
	text := func(s string) *string {
		if s == "" {
			return nil
		}
		return &s
	}
	return &jsonDecision{
		Verdict: strings.ToLower(strings.TrimPrefix(d.GetVerdict().String(), "VERDICT_")),
		Rule:    strings.ToLower(strings.TrimPrefix(d.GetRule().String(), "RULE_")),
		Entry:   text(d.GetEntry()), Preferences: preferencesJSON(d.GetInForce().GetPreferences()), Own: d.GetInForce().GetOwn(),
		By: entryJSON(d.GetInForce().GetDecidedBy()), ContactEvent: text(d.GetContactEvent()), RosterHere: d.GetRosterHere(),
	}
}
