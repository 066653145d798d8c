package main

import (
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	adminv1 "mamlog/admin/v1"
	"mamlog/admin/v1/adminv1connect"
	"mamlog/log"
)

func newWhyCommand(a *app) *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use:   "why JID ID",
		Short: "Tell why a message is in a user's archive",
		Long: `Tell why the message with that archive ID is in a user's archive: which rule of
XEP-0313 found it worth archiving, and what the preferences or the policy in force
said of its other side, since when, by whom and by which event. What the message
says is not shown. That somebody asked is recorded.`,
		Example:           "  mamlog why juliet@test.example 01KB1Q5TZ5X7T9GJ2M6Q0V8D4R",
		Args:              exactlyTwo("JID", "archive ID"),
		ValidArgsFunction: a.completeUser,
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withClient(cmd.Context(), offline{owner: args[0]}, func(c adminv1connect.AdminServiceClient) error {
				res, err := c.Explain(cmd.Context(), request(&adminv1.ExplainRequest{Owner: args[0], Id: args[1]}))
				if err != nil {
					return err
				}
				if asJSON {
					return writeJSON(a.out, explainJSON(res.Msg))
				}
				printExplanation(a.out, res.Msg)
				return nil
			})
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print one JSON object")
	return c
}

func printExplanation(w io.Writer, e *adminv1.ExplainResponse) {
	fmt.Fprintf(w, "message  %s, %s, %s %s\n", e.GetId(), clock(e.GetTime().AsTime()), arrow(e.GetDirection()), harmless(e.GetWith()))
	fmt.Fprintf(w, "rule     %s\n", reasonWords[e.GetReason()])
	switch {
	case e.GetDecision() != nil:
		printDecision(w, e.GetDecision(), e.GetWith())
	case e.GetReason() == log.Reason_REASON_IMPORT:
		fmt.Fprintln(w, "because  another archive had it, and nothing here decided on it")
	case e.GetDirection() == log.Direction_DIRECTION_ROOM:
		fmt.Fprintf(w, "because  the room's server asked for it: a room has no preferences\nevent    %s\n", e.GetDecidedBy())
	default:
		fmt.Fprintf(w, "because  an event said so that is not in the history any more\nevent    %s\n", e.GetDecidedBy())
	}
}

// reasonWords say which rule found a message worth archiving.
var reasonWords = map[log.Reason]string{
	log.Reason_REASON_UNSPECIFIED: "none that this version knows",
	log.Reason_REASON_BODY:        "it has a body",
	log.Reason_REASON_SUBJECT:     "it has a subject",
	log.Reason_REASON_STORE_HINT:  "its sender asked for it (XEP-0334)",
	log.Reason_REASON_ENCRYPTED:   "it has encrypted content",
	log.Reason_REASON_RECEIPT:     "it is a receipt (XEP-0184)",
	log.Reason_REASON_MARKER:      "it is a chat marker (XEP-0333)",
	log.Reason_REASON_INVITE:      "it is an invitation to a room",
	log.Reason_REASON_CALL:        "it is about a call",
	log.Reason_REASON_BOUNCE:      "it is an error that answers an archived message",
	log.Reason_REASON_RETRACTION:  "it retracts a message (XEP-0424)",
	log.Reason_REASON_REACTION:    "it is a reaction (XEP-0444)",
	log.Reason_REASON_IMPORT:      "it was imported",
}

func reasonName(r log.Reason) string {
	return strings.ToLower(strings.TrimPrefix(r.String(), "REASON_"))
}

// jsonExplanation is what --json prints. Scripts depend on its fields.
type jsonExplanation struct {
	ID        string        `json:"id"`
	Stamp     string        `json:"stamp"`
	With      string        `json:"with"`
	Direction string        `json:"direction"`
	Reason    string        `json:"reason"`
	DecidedBy string        `json:"decided_by,omitempty"`
	Decision  *jsonDecision `json:"decision"`
}

func explainJSON(e *adminv1.ExplainResponse) jsonExplanation {
	return jsonExplanation{
		ID: e.GetId(), Stamp: stamp(e.GetTime().AsTime()), With: e.GetWith(), Direction: direction(e.GetDirection()),
		Reason: reasonName(e.GetReason()), DecidedBy: e.GetDecidedBy(), Decision: decisionJSON(e.GetDecision()),
	}
}

// exactlyTwo arguments, and what they are.
func exactlyTwo(first, second string) cobra.PositionalArgs {
	return func(_ *cobra.Command, args []string) error {
		switch len(args) {
		case 0:
			return fmt.Errorf("the %s and the %s are missing", first, second)
		case 1:
			return fmt.Errorf("the %s is missing", second)
		case 2:
			return nil
		}
		return fmt.Errorf("too many arguments: a %s and a %s are taken, and %q follows them", first, second, args[2])
	}
}
