package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/rivo/uniseg"
	"github.com/spf13/cobra"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/reflect/protoreflect"

	adminv1 "mamlog/admin/v1"
	"mamlog/admin/v1/adminv1connect"
	"mamlog/log"
)

func newAuditCommand(a *app) *cobra.Command {
	r := &adminv1.ListAuditRequest{}
	since, until := timeFlag{}, timeFlag{end: true}
	var asJSON bool
	c := &cobra.Command{
		Use:   "audit",
		Short: "Show, sign and prove the history of who did what",
		Long: `Show the records that never expire, oldest first: changes of preferences, policies,
accounts and rosters, expiry runs, imports, and every look of somebody else into an
archive or its owner's settings, this one too. Message texts are not among them.
For one user's preferences with what was before and after each change, 'mamlog prefs
history' is shorter.

The records of each store are the leaves of a Merkle tree (RFC 6962). The server
signs its state when it starts, every hour and when it stops, and keeps these
checkpoints in DATA_DIR/audit, with the key. Copy them to where nobody who can
write here can: with one of them and the public key, anybody can be shown that
nothing before it was changed. 'mamlog check' holds the log against all of them.

--owner takes a JID, or the host of a policy or an expiry; --actor takes what the
table shows, or a bare JID for all of its devices.

--json prints one object a line: id, time, store, kind, owner, actor and event.`,
		Example: `  mamlog audit --owner juliet@test.example --since 2026-11-01
  mamlog audit --kind read --json | jq -r '.actor + " " + .owner'
  mamlog audit checkpoint > 2026-11-27.note`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			r.Since, r.Until = since.timestamp(), until.timestamp()
			return a.withClient(cmd.Context(), offline{stores: true, store: r.Store, audit: true}, func(c adminv1connect.AdminServiceClient) error {
				stream, err := c.ListAudit(cmd.Context(), request(r))
				if err != nil {
					return err
				}
				out := bufio.NewWriter(a.out)
				table := &auditTable{out: out}
				err = receive(stream, func(m *adminv1.ListAuditResponse) error {
					if !asJSON {
						table.page(m.GetEntries())
						return nil
					}
					for _, e := range m.GetEntries() {
						j, err := auditJSON(e)
						if err != nil {
							return err
						}
						if err := writeJSON(out, j); err != nil {
							return err
						}
					}
					return nil
				})
				return errors.Join(err, out.Flush())
			})
		},
	}
	f := c.Flags()
	f.SortFlags = false
	f.Var((*textFlag)(&r.Owner), "owner", "only what is about this `JID` or host")
	f.Var((*textFlag)(&r.Actor), "actor", "only what this `ACTOR` did")
	f.StringSliceVar(&r.Kinds, "kind", nil, "only records of this `KIND`, as the table shows it; can be repeated")
	f.Var(&since, "since", "only records since this time")
	f.Var(&until, "until", "only records until this time")
	f.Var((*textFlag)(&r.Store), "store", "only the store `NAME`: main, or an archive_store")
	f.BoolVar(&asJSON, "json", false, "print one JSON object a line")
	c.RegisterFlagCompletionFunc("store", a.completeStore)
	c.AddCommand(newAuditCheckpointCommand(a), newAuditKeyCommand(a), newAuditProveCommand(a), newAuditVerifyCommand(a))
	return c
}

// auditTable prints a line a record. A column is as wide as what has come until
// then needs it.
type auditTable struct {
	out    io.Writer
	widths [4]int // of kind, owner and actor, and the heading's
}

func (t *auditTable) page(entries []*adminv1.AuditEntry) {
	rows := make([][]string, 0, len(entries)+1)
	if t.widths == [4]int{} {
		rows = append(rows, []string{"KIND", "OWNER", "ACTOR", "WHAT"})
	}
	heading := len(rows)
	for _, e := range entries {
		rows = append(rows, []string{e.GetKind(), harmless(orDash(e.GetOwner())), harmless(actorName(e.GetActor())), isolated(eventWords(e.GetEvent()) + erasedWords(e.GetErased()))})
	}
	for _, r := range rows {
		for i, cell := range r {
			t.widths[i] = max(t.widths[i], uniseg.StringWidth(cell))
		}
	}
	for i, r := range rows {
		when, id := "TIME (UTC)", "ID"
		if i >= heading {
			e := entries[i-heading]
			when, id = clock(e.GetTime().AsTime()), e.GetId()
		}
		line := pad(when, timeWidth) + "  " + pad(id, 26)
		for n, cell := range r {
			line += "  " + pad(cell, t.widths[n])
		}
		fmt.Fprintln(t.out, strings.TrimRight(line, " "))
	}
}

func erasedWords(erased bool) string {
	if erased {
		return " (what was personal in it is erased)"
	}
	return ""
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

// actorName is who did it; what nobody asked for mamlog did by itself.
func actorName(s string) string {
	if s == "" {
		return "mamlog"
	}
	return s
}

// eventWords tell in one line what an audit record says; who and whom stands beside
// them.
func eventWords(e *log.Event) string {
	switch k := e.GetKind().(type) {
	case *log.Event_Preferences:
		return causeWords(k.Preferences.GetCause()) + ": " + preferenceWords(k.Preferences.GetAfter())
	case *log.Event_Policy:
		return policyWords(k.Policy.GetAfter())
	case *log.Event_Account:
		if k.Account.GetCredentials() == nil {
			return "deleted"
		}
		return "made, or its password set"
	case *log.Event_Roster:
		if k.Roster.GetItem() == nil {
			return "removed " + harmless(k.Roster.GetContact())
		}
		if !k.Roster.GetItem().GetListed() {
			return harmless(k.Roster.GetContact()) + " asks to be a contact"
		}
		return "contact " + harmless(k.Roster.GetContact())
	case *log.Event_Expired:
		return "messages before " + clock(time.UnixMilli(k.Expired.GetBeforeUnixMs()))
	case *log.Event_Clock:
		return fmt.Sprintf("%s; until then messages expired by %s",
			clock(time.UnixMilli(k.Clock.GetClockUnixMs())), clock(time.UnixMilli(k.Clock.GetRetentionUnixMs())))
	case *log.Event_Read:
		return harmless(k.Read.GetQuery())
	case *log.Event_Imported:
		return fmt.Sprintf("%d messages", k.Imported.GetMessages())
	case *log.Event_Cut:
		return fmt.Sprintf("%s: %d messages, %d bytes, up to %s", cutCauseWords[k.Cut.GetCause()], k.Cut.GetMessages(), k.Cut.GetBytes(), idText(k.Cut.GetUpTo()))
	case *log.Event_Retention:
		return retentionWords(k.Retention.GetAfter())
	case *log.Event_Erase:
		return "ordered to erase everything of theirs"
	case *log.Event_Erased:
		return "gone are " + erasedCounts(k.Erased)
	}
	return plainWords(e)
}

// cutCauseWords say why the oldest messages of an archive were deleted.
var cutCauseWords = map[log.CutCause]string{
	log.CutCause_CUT_CAUSE_UNSPECIFIED: "deleted",
	log.CutCause_CUT_CAUSE_TRIM:        "deleted by the user",
	log.CutCause_CUT_CAUSE_QUOTA:       "more than the quota",
	log.CutCause_CUT_CAUSE_RETENTION:   "older than the user's own retention",
	log.CutCause_CUT_CAUSE_ERASE:       "of whoever had the name before",
}

// erasedCounts say how much an erasure took.
func erasedCounts(e *log.Erased) string {
	return fmt.Sprintf("%d messages, %d bytes, and what was in %d changes of preferences and %d of the roster",
		e.GetMessages(), e.GetBytes(), e.GetPreferenceChanges(), e.GetRosterChanges())
}

// idText is an id as it is written in a record.
func idText(b []byte) string {
	var id ulid.ULID
	if len(b) != len(id) {
		return "-"
	}
	copy(id[:], b)
	return id.String()
}

// plainWords are the texts and numbers of an event, by the names that they have.
func plainWords(e *log.Event) string {
	m := e.ProtoReflect()
	kind := m.WhichOneof(m.Descriptor().Oneofs().ByName("kind"))
	if kind == nil {
		return "an event that this version does not know"
	}
	var words []string
	m.Get(kind).Message().Range(func(f protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		switch name := f.Name(); {
		case name == "owner", name == "actor", name == "host", f.IsList(), f.IsMap(), f.Kind() == protoreflect.BytesKind:
		case f.Kind() == protoreflect.MessageKind:
		case f.Kind() == protoreflect.EnumKind:
			words = append(words, fmt.Sprintf("%s=%s", name, f.Enum().Values().ByNumber(v.Enum()).Name()))
		default:
			words = append(words, fmt.Sprintf("%s=%s", name, harmless(v.String())))
		}
		return true
	})
	return strings.Join(words, " ")
}

// jsonAudit is one line of --json. Scripts depend on its fields.
type jsonAudit struct {
	ID    string `json:"id"`
	Time  string `json:"time"`
	Store string `json:"store"`
	Kind  string `json:"kind"`
	Owner string `json:"owner"`
	Actor string `json:"actor"`
	Event any    `json:"event"`

	Erased bool `json:"erased,omitempty"` // what was personal in the event is gone
}

func auditJSON(e *adminv1.AuditEntry) (*jsonAudit, error) {
	event, err := eventJSON(e.GetEvent())
	return &jsonAudit{
		ID: e.GetId(), Time: stamp(e.GetTime().AsTime()), Store: e.GetStore(), Kind: e.GetKind(),
		Owner: e.GetOwner(), Actor: actorName(e.GetActor()), Event: event, Erased: e.GetErased(),
	}, err
}

// eventJSON shows preferences and policies as 'prefs history' does, and the rest by
// the names of log/event.proto.
func eventJSON(e *log.Event) (any, error) {
	switch k := e.GetKind().(type) {
	case *log.Event_Preferences:
		return struct {
			Cause  string           `json:"cause"`
			Before *jsonPreferences `json:"before"`
			After  *jsonPreferences `json:"after"`
		}{causeName(k.Preferences.GetCause()), preferencesJSON(k.Preferences.GetBefore()), preferencesJSON(k.Preferences.GetAfter())}, nil
	case *log.Event_Policy:
		return struct {
			Before *jsonPolicy `json:"before"`
			After  *jsonPolicy `json:"after"`
		}{policyJSON(k.Policy.GetBefore()), policyJSON(k.Policy.GetAfter())}, nil
	}
	m := e.ProtoReflect()
	kind := m.WhichOneof(m.Descriptor().Oneofs().ByName("kind"))
	if kind == nil {
		return nil, nil
	}
	b, err := protojson.MarshalOptions{UseProtoNames: true}.Marshal(m.Get(kind).Message().Interface())
	return json.RawMessage(b), err
}
