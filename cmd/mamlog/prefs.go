package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/timestamppb"

	adminv1 "mamlog/admin/v1"
	"mamlog/admin/v1/adminv1connect"
	"mamlog/log"
)

func newPrefsCommand(a *app) *cobra.Command {
	return parent(&cobra.Command{
		Use:   "prefs",
		Short: "Show and set what a user archives, and its history",
		Long: `Show and set archiving preferences (XEP-0441): whether messages are archived by
default (always, never, or roster: with contacts only), and the JIDs with which they
always or never are. A user who has set none has those of the host's policy.`,
	}, newPrefsGetCommand(a), newPrefsSetCommand(a), newPrefsHistoryCommand(a))
}

func newPrefsGetCommand(a *app) *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use:               "get JID",
		Short:             "Show what is in force for a user",
		Long:              "Show the preferences in force for a user, and which event set them.",
		Example:           "  mamlog prefs get juliet@test.example",
		Args:              exactly("JID"),
		ValidArgsFunction: a.completeUser,
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withClient(cmd.Context(), offline{owner: args[0]}, func(c adminv1connect.AdminServiceClient) error {
				return a.printInForce(cmd.Context(), c, &adminv1.GetPreferencesRequest{Owner: args[0]}, asJSON)
			})
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print one JSON object")
	return c
}

func newPrefsSetCommand(a *app) *cobra.Command {
	var byDefault string
	var always, never []string
	c := &cobra.Command{
		Use:   "set JID",
		Short: "Set preferences of a user",
		Long: `Set preferences of a user. What is not named stays as it is. A list that is named
replaces the one there was; give --always '' or --never '', alone, to empty it. The change is
recorded with your name, and applies to every message from then on.`,
		Example: `  mamlog prefs set juliet@test.example --default never --always romeo@test.example
  mamlog prefs set juliet@test.example --never paris@test.example --never tybalt@test.example
  mamlog prefs set juliet@test.example --never ''`,
		Args:              exactly("JID"),
		ValidArgsFunction: a.completeUser,
		RunE: func(cmd *cobra.Command, args []string) error {
			r := &adminv1.SetPreferencesRequest{Owner: args[0]}
			var err error
			if cmd.Flags().Changed("default") {
				d, ok := defaults[byDefault]
				if !ok {
					return fmt.Errorf("--default: %q is not known; allowed is always, never or roster", byDefault)
				}
				r.Default = d
			}
			if cmd.Flags().Changed("always") {
				if r.Always, err = jidsOf("always", always); err != nil {
					return err
				}
			}
			if cmd.Flags().Changed("never") {
				if r.Never, err = jidsOf("never", never); err != nil {
					return err
				}
			}
			if r.Default == log.Default_DEFAULT_UNSPECIFIED && r.Always == nil && r.Never == nil {
				return errors.New("nothing to set: give --default, --always or --never")
			}
			return a.withClient(cmd.Context(), offline{owner: args[0]}, func(c adminv1connect.AdminServiceClient) error {
				res, err := c.SetPreferences(cmd.Context(), request(r))
				if err != nil {
					return err
				}
				printPreferences(a.out, res.Msg.GetInForce())
				return nil
			})
		},
	}
	c.Flags().StringVar(&byDefault, "default", "", "what is archived where no list says: `always|never|roster`")
	c.Flags().StringArrayVar(&always, "always", nil, "archive messages with this `JID`; can be repeated")
	c.Flags().StringArrayVar(&never, "never", nil, "don't archive messages with this `JID`; can be repeated")
	c.RegisterFlagCompletionFunc("default", cobra.FixedCompletions([]string{"always", "never", "roster"}, cobra.ShellCompDirectiveNoFileComp))
	c.RegisterFlagCompletionFunc("always", cobra.NoFileCompletions)
	c.RegisterFlagCompletionFunc("never", cobra.NoFileCompletions)
	return c
}

var defaults = map[string]log.Default{
	"always": log.Default_DEFAULT_ALWAYS,
	"never":  log.Default_DEFAULT_NEVER,
	"roster": log.Default_DEFAULT_ROSTER,
}

// jidsOf is the list that the option was given with: one empty JID alone is the
// empty list.
func jidsOf(option string, jids []string) (*adminv1.JIDs, error) {
	if len(jids) == 1 && jids[0] == "" {
		return &adminv1.JIDs{}, nil
	}
	if slices.Contains(jids, "") {
		return nil, fmt.Errorf("--%s: one of the JIDs is empty; --%s '' empties the list only where it stands alone", option, option)
	}
	return &adminv1.JIDs{Jids: jids}, nil
}

// printInForce prints what is in force now, or was at r's time.
func (a *app) printInForce(ctx context.Context, c adminv1connect.AdminServiceClient, r *adminv1.GetPreferencesRequest, asJSON bool) error {
	res, err := c.GetPreferences(ctx, request(r))
	if err != nil {
		return err
	}
	in := res.Msg.GetInForce()
	if !asJSON {
		printPreferences(a.out, in)
		return nil
	}
	return writeJSON(a.out, struct {
		jsonPreferences
		Own bool       `json:"own"`
		By  *jsonEntry `json:"by"`
	}{*preferencesJSON(in.GetPreferences()), in.GetOwn(), entryJSON(in.GetDecidedBy())})
}

func printPreferences(w io.Writer, in *adminv1.PreferencesInForce) {
	p := in.GetPreferences()
	byDefault := defaultName(p.GetDefault())
	if policy := in.GetDecidedBy().GetPolicy().GetAfter(); policy.GetSmartEnable() {
		byDefault += " until the archive is first used, then " + defaultName(policy.GetDefault())
	}
	fmt.Fprintf(w, "default  %s\nalways   %s\nnever    %s\n", byDefault, jidList(p.GetAlways()), jidList(p.GetNever()))
	e := in.GetDecidedBy()
	if e == nil {
		return
	}
	fmt.Fprintf(w, "set      %s, %s\nevent    %s\n", clock(e.GetTime().AsTime()), who(e), e.GetId())
}

// who says whose change an entry is.
func who(e *adminv1.HistoryEntry) string {
	if p := e.GetPolicy(); p != nil {
		return "by the configuration of " + harmless(p.GetHost())
	}
	p := e.GetPreferences()
	if p.GetCause() == log.Cause_CAUSE_OPERATOR {
		return "by " + harmless(p.GetActor()) // which says so
	}
	return "by " + harmless(p.GetActor()) + " (" + causeWords(p.GetCause()) + ")"
}

// causeWords are for people, causeName is for machines.
func causeWords(c log.Cause) string {
	switch c {
	case log.Cause_CAUSE_CLIENT:
		return "client"
	case log.Cause_CAUSE_SMART_ENABLE:
		return "first use of the archive"
	case log.Cause_CAUSE_OPERATOR:
		return "operator"
	case log.Cause_CAUSE_IMPORT:
		return "import"
	case log.Cause_CAUSE_ACCOUNT_DELETED:
		return "account deleted"
	}
	return causeName(c)
}

func causeName(c log.Cause) string {
	return strings.ToLower(strings.TrimPrefix(c.String(), "CAUSE_"))
}

func defaultName(d log.Default) string {
	return strings.ToLower(strings.TrimPrefix(d.String(), "DEFAULT_"))
}

func jidList(jids []string) string {
	if len(jids) == 0 {
		return "-"
	}
	return harmless(strings.Join(jids, ", "))
}

// timestamp is t for a request, nil if it isn't set.
func (f *timeFlag) timestamp() *timestamppb.Timestamp {
	if !f.set {
		return nil
	}
	return timestamppb.New(f.t)
}
