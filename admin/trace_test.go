package admin

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	"github.com/oklog/ulid/v2"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	adminv1 "mamlog/admin/v1"
	"mamlog/audit"
	"mamlog/log"
)

// reads are the looks into archives that the log knows of: actor, owner, what.
func (f *fixture) reads() (all []string) {
	f.Helper()
	for r, err := range f.log.ScanAudit(ulid.ULID{}) {
		if err != nil {
			f.Fatal(err)
		}
		if read := r.Event.GetRead(); read != nil {
			all = append(all, read.GetActor()+" "+read.GetOwner()+" "+read.GetQuery())
		}
	}
	return all
}

// unary makes the answer of a call that is no stream look like one's.
func unary[T any](r *connect.Response[T], err error) (any, error) {
	if err != nil {
		return nil, err
	}
	return r.Msg, nil
}

func streamed[T any](all []*T, err error) (any, error) {
	if len(all) == 0 {
		return nil, err
	}
	return all, err
}

// TestEveryReadLeavesATrace goes through all methods of the service. Whoever shows
// what belongs to somebody leaves a record of who, whose and what, and shows nothing
// where that can't be written.
func TestEveryReadLeavesATrace(t *testing.T) {
	const juliet = "juliet@test.example"
	f := newFixture(t)
	f.add(juliet)
	f.send(juliet+"/a", "romeo@test.example/b", "hello")
	pages, err := each(f.client.QueryArchive(t.Context(), connect.NewRequest(&adminv1.QueryArchiveRequest{Owner: juliet})))
	if err != nil {
		t.Fatal(err)
	}
	message := pages[0].Messages[0]
	at := timestamppb.New(f.now)
	copied := filepath.Join(t.TempDir(), "copy")
	type method struct {
		query string // what is written down; "": it shows nothing of anybody's
		call  func() (any, error)
	}
	methods := map[string]method{
		"QueryArchive": {juliet + " everything", func() (any, error) {
			return streamed(each(f.client.QueryArchive(t.Context(), connect.NewRequest(&adminv1.QueryArchiveRequest{Owner: juliet}))))
		}},
		"GetPreferences": {juliet + " preferences at=2026-11-22T20:00:00Z", func() (any, error) {
			return unary(f.client.GetPreferences(t.Context(), connect.NewRequest(&adminv1.GetPreferencesRequest{Owner: juliet, At: at})))
		}},
		"SetPreferences": {juliet + " preferences, to set them", func() (any, error) {
			return unary(f.client.SetPreferences(t.Context(), connect.NewRequest(&adminv1.SetPreferencesRequest{Owner: juliet, Default: log.Default_DEFAULT_ALWAYS})))
		}},
		"GetRetention": {juliet + " retention", func() (any, error) {
			return unary(f.client.GetRetention(t.Context(), connect.NewRequest(&adminv1.GetRetentionRequest{Owner: juliet})))
		}},
		"SetRetention": {juliet + " retention, to set it", func() (any, error) {
			return unary(f.client.SetRetention(t.Context(), connect.NewRequest(&adminv1.SetRetentionRequest{
				Owner: juliet, QuotaItems: &adminv1.Setting{Value: proto.Uint64(1000)},
			})))
		}},
		"ListPreferenceHistory": {juliet + " preference history", func() (any, error) {
			return streamed(each(f.client.ListPreferenceHistory(t.Context(), connect.NewRequest(&adminv1.ListPreferenceHistoryRequest{Owner: juliet}))))
		}},
		"Explain": {juliet + " why " + message.Id, func() (any, error) {
			return unary(f.client.Explain(t.Context(), connect.NewRequest(&adminv1.ExplainRequest{Owner: juliet, Id: message.Id})))
		}},
		"Decide": {juliet + " policy romeo@test.example at=2026-11-22T20:00:00Z", func() (any, error) {
			return unary(f.client.Decide(t.Context(), connect.NewRequest(&adminv1.DecideRequest{Owner: juliet, Peer: "romeo@test.example", At: at})))
		}},
		"ListAudit": {juliet + " audit history actor=x@y kind=read,policy", func() (any, error) {
			return streamed(each(f.client.ListAudit(t.Context(), connect.NewRequest(&adminv1.ListAuditRequest{Owner: juliet, Actor: "X@y", Kinds: []string{"read", "policy"}}))))
		}},
		"ProveInclusion": {"test.example proof of the event " + message.DecidedBy, func() (any, error) {
			return unary(f.client.ProveInclusion(t.Context(), connect.NewRequest(&adminv1.ProveInclusionRequest{Id: message.DecidedBy})))
		}},
		"Backup": {" backup to " + copied, func() (any, error) {
			defer os.RemoveAll(copied)
			return streamed(each(f.client.Backup(t.Context(), connect.NewRequest(&adminv1.BackupRequest{Dir: copied}))))
		}},
	}
	// These show nothing that belongs to a user.
	silent := []string{
		"AddUser", "SetPassword", "DeleteUser", "ListUsers", "ListLinks", "Rebuild", "Check",
		"SignCheckpoint", "GetAuditKey", "ProveConsistency", "Expire", "Erase", "Clock",
	}
	all := adminv1.File_admin_v1_admin_proto.Services().ByName("AdminService").Methods()
	for i := range all.Len() {
		name := string(all.Get(i).Name())
		m, ok := methods[name]
		if !ok {
			if !slices.Contains(silent, name) {
				t.Errorf("%s is new: does it show what belongs to somebody?", name)
			}
			continue
		}
		before := len(f.reads())
		if _, err := m.call(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if got, want := f.reads()[before:], []string{me(t) + " " + m.query}; !slices.Equal(got, want) {
			t.Errorf("%s left %q, want %q", name, got, want)
		}
	}
	if err := f.log.Close(); err != nil {
		t.Fatal(err)
	}
	for name, m := range methods {
		if shown, err := m.call(); err == nil || shown != nil {
			t.Errorf("%s shows %v, %v where nothing can be written down", name, shown, err)
		}
	}
}

func (f *fixture) audit(r *adminv1.ListAuditRequest) (entries []*adminv1.AuditEntry) {
	f.Helper()
	parts, err := each(f.client.ListAudit(f.Context(), connect.NewRequest(r)))
	if err != nil {
		f.Fatal(err)
	}
	for _, p := range parts {
		entries = append(entries, p.Entries...)
	}
	return entries
}

// TestAuditFilters: every filter selects what it says, and secrets stay inside.
func TestAuditFilters(t *testing.T) {
	f := newFixture(t)
	f.add("juliet@test.example")
	f.now = f.now.Add(time.Hour)
	noon := f.now
	f.add("romeo@test.example")
	for i := range 300 { // more than one message of the stream holds
		_, err := f.client.SetPreferences(t.Context(), connect.NewRequest(&adminv1.SetPreferencesRequest{
			Owner: "juliet@test.example", Default: []log.Default{log.Default_DEFAULT_NEVER, log.Default_DEFAULT_ALWAYS}[i%2],
		}))
		if err != nil {
			t.Fatal(err)
		}
	}
	count := func(r *adminv1.ListAuditRequest) string {
		n := make(map[string]int)
		last := ""
		for _, e := range f.audit(r) {
			if n[e.Kind]++; e.Id <= last {
				t.Errorf("%s comes after %s", e.Id, last)
			}
			last = e.Id
			if len(e.Event.GetAccount().GetCredentials().GetScram()) > 0 {
				t.Errorf("%s shows what verifies a password", e.Id)
			}
		}
		return fmt.Sprint(n)
	}
	for _, c := range []struct {
		name, want string
		r          *adminv1.ListAuditRequest
	}{
		{"all", "map[account:2 policy:1 preferences:300 read:301]", &adminv1.ListAuditRequest{}},
		{"owner", "map[account:1 preferences:300 read:301]", &adminv1.ListAuditRequest{Owner: "Juliet@test.example"}},
		{"host", "map[policy:1 read:1]", &adminv1.ListAuditRequest{Owner: "test.example"}},
		{"kind", "map[account:2 policy:1]", &adminv1.ListAuditRequest{Kinds: []string{"policy", "account"}}},
		{"actor", "map[]", &adminv1.ListAuditRequest{Actor: "operator:nobody"}},
		{"me", "map[account:1]", &adminv1.ListAuditRequest{Actor: me(t), Kinds: []string{"account"}, Owner: "romeo@test.example"}},
		{"until", "map[account:1 policy:1]", &adminv1.ListAuditRequest{Until: timestamppb.New(noon.Add(-time.Millisecond))}},
		{"since", "map[account:1]", &adminv1.ListAuditRequest{Since: timestamppb.New(noon), Kinds: []string{"account"}}},
	} {
		if got := count(c.r); got != c.want {
			t.Errorf("%s: got %s, want %s", c.name, got, c.want)
		}
	}
	_, err := each(f.client.ListAudit(t.Context(), connect.NewRequest(&adminv1.ListAuditRequest{Kinds: []string{"message"}})))
	f.code("messages", err, connect.CodeInvalidArgument)
	_, err = each(f.client.ListAudit(t.Context(), connect.NewRequest(&adminv1.ListAuditRequest{Store: "elsewhere"})))
	f.code("elsewhere", err, connect.CodeInvalidArgument)
}

// TestProofs: every event of the history can be proved, whatever it is, without what
// verifies passwords; and the growth between two checkpoints.
func TestProofs(t *testing.T) {
	f := newFixture(t)
	f.add("juliet@test.example")
	sign := func() []byte {
		t.Helper()
		r, err := f.client.SignCheckpoint(t.Context(), connect.NewRequest(&adminv1.SignCheckpointRequest{}))
		if err != nil {
			t.Fatal(err)
		}
		return r.Msg.Checkpoint
	}
	old := sign()
	if again := sign(); !bytes.Equal(again, old) {
		t.Errorf("nothing happened, and another checkpoint is signed:\n%s%s", old, again)
	}
	if _, err := f.client.SetPreferences(t.Context(), connect.NewRequest(&adminv1.SetPreferencesRequest{Owner: "juliet@test.example", Default: log.Default_DEFAULT_NEVER})); err != nil {
		t.Fatal(err)
	}
	v := f.service.Book.Verifier()
	for _, e := range f.audit(&adminv1.ListAuditRequest{}) {
		r, err := f.client.ProveInclusion(t.Context(), connect.NewRequest(&adminv1.ProveInclusionRequest{Id: e.Id}))
		if err != nil {
			t.Fatal(err)
		}
		p := new(audit.Inclusion)
		if err := json.Unmarshal(r.Msg.Proof, p); err != nil {
			t.Fatal(err)
		}
		if _, err := p.Verify(v); err != nil || p.ID.String() != e.Id {
			t.Errorf("%s: %v", e.Kind, err)
		}
		event := new(log.Event)
		if err := proto.Unmarshal(p.Event, event); err != nil || p.Event == nil {
			t.Errorf("%s: the proof has the event %q, %v", e.Kind, p.Event, err)
		}
		if len(event.GetAccount().GetCredentials().GetScram()) > 0 || e.Kind == "account" && p.Personal != nil {
			t.Errorf("%s: the proof has what verifies a password", e.Kind)
		}
	}
	_, err := f.client.ProveInclusion(t.Context(), connect.NewRequest(&adminv1.ProveInclusionRequest{Id: "01ARZ3NDEKTSV4RRFFQ69G5FAV"}))
	f.code("no such event", err, connect.CodeOutOfRange)

	r, err := f.client.ProveConsistency(t.Context(), connect.NewRequest(&adminv1.ProveConsistencyRequest{From: old}))
	if err != nil {
		t.Fatal(err)
	}
	g := new(audit.Consistency)
	if err := json.Unmarshal(r.Msg.Proof, g); err != nil {
		t.Fatal(err)
	}
	from, to, err := g.Verify(v)
	if err != nil || from.Heads[0].Size != 2 || to.Heads[0].Size <= from.Heads[0].Size {
		t.Errorf("grown from %v to %v, %v", from, to, err)
	}
	_, err = f.client.ProveConsistency(t.Context(), connect.NewRequest(&adminv1.ProveConsistencyRequest{From: []byte("nonsense")}))
	f.code("no checkpoint", err, connect.CodeInvalidArgument)
}

// TestDecisions: what is told of a decision is what was decided.
func TestDecisions(t *testing.T) {
	const juliet, romeo = "juliet@test.example", "romeo@test.example"
	f := newFixture(t)
	f.add(juliet)
	type asked struct {
		at   time.Time
		peer string
		want string
	}
	var questions []asked
	decide := func(peer string, at *timestamppb.Timestamp) string {
		t.Helper()
		r, err := f.client.Decide(t.Context(), connect.NewRequest(&adminv1.DecideRequest{Owner: juliet, Peer: peer, At: at}))
		if err != nil {
			t.Fatal(err)
		}
		d := r.Msg.Decision
		return strings.ToLower(strings.TrimPrefix(d.Verdict.String(), "VERDICT_") + " " + strings.TrimPrefix(d.Rule.String(), "RULE_") + " " + d.Entry)
	}
	expect := func(peer, want string) {
		t.Helper()
		if got := decide(peer, nil); got != want {
			t.Errorf("%s: got %q, want %q", peer, got, want)
		}
		questions = append(questions, asked{f.now, peer, want})
	}
	set := func(d log.Default, always, never []string) {
		t.Helper()
		f.now = f.now.Add(time.Hour)
		if _, err := f.client.SetPreferences(t.Context(), connect.NewRequest(&adminv1.SetPreferencesRequest{
			Owner: juliet, Default: d, Always: &adminv1.JIDs{Jids: always}, Never: &adminv1.JIDs{Jids: never},
		})); err != nil {
			t.Fatal(err)
		}
	}
	contact := func(item *log.RosterItem) string {
		t.Helper()
		f.now = f.now.Add(time.Hour)
		ids, err := f.log.AppendWait(t.Context(), log.Entry{Class: log.Audit, Event: &log.Event{Kind: &log.Event_Roster{
			Roster: &log.RosterChanged{Owner: juliet, Contact: romeo, Item: item},
		}}})
		if err != nil {
			t.Fatal(err)
		}
		return ids[0].String()
	}
	expect(romeo, "archived default ")
	set(log.Default_DEFAULT_NEVER, []string{romeo + "/orchard"}, nil)
	expect(romeo, "not_archived default ")
	expect(romeo+"/orchard", "archived always romeo@test.example/orchard")
	set(log.Default_DEFAULT_ROSTER, nil, []string{romeo})
	expect(romeo+"/orchard", "not_archived never romeo@test.example")
	expect(juliet+"/balcony", "archived self ")
	set(log.Default_DEFAULT_ROSTER, nil, nil)
	expect(romeo, "not_archived contact ")
	became := contact(&log.RosterItem{Contact: romeo, Listed: true})
	expect(romeo, "archived contact ")

	// Why is what is there there: the contact is taken away after the message.
	f.now = f.now.Add(time.Hour)
	f.send(romeo+"/orchard", juliet, "hello")
	contact(nil)
	expect(romeo, "not_archived contact ")
	set(log.Default_DEFAULT_NEVER, nil, nil)
	expect(romeo, "not_archived default ")
	pages, err := each(f.client.QueryArchive(t.Context(), connect.NewRequest(&adminv1.QueryArchiveRequest{Owner: juliet})))
	if err != nil || len(pages[0].Messages) != 1 {
		t.Fatalf("%v, %v", pages, err)
	}
	m := pages[0].Messages[0]
	r, err := f.client.Explain(t.Context(), connect.NewRequest(&adminv1.ExplainRequest{Owner: juliet, Id: m.Id}))
	if err != nil {
		t.Fatal(err)
	}
	d := r.Msg.Decision
	if r.Msg.Reason != log.Reason_REASON_BODY || r.Msg.DecidedBy != m.DecidedBy || d.GetInForce().GetDecidedBy().GetId() != m.DecidedBy ||
		d.Verdict != adminv1.Verdict_VERDICT_ARCHIVED || d.Rule != adminv1.Rule_RULE_CONTACT || d.ContactEvent != became || !d.RosterHere {
		t.Errorf("why: got %v", r.Msg)
	}
	if strings.Contains(r.Msg.String(), "hello") {
		t.Errorf("the message is shown: %v", r.Msg)
	}
	_, err = f.client.Explain(t.Context(), connect.NewRequest(&adminv1.ExplainRequest{Owner: juliet, Id: "01ARZ3NDEKTSV4RRFFQ69G5FAV"}))
	f.code("no such message", err, connect.CodeOutOfRange)

	// What was told then is told of then.
	for _, q := range questions {
		if got := decide(q.peer, timestamppb.New(q.at)); got != q.want {
			t.Errorf("%s at %s: got %q, want %q", q.peer, q.at, got, q.want)
		}
	}

	// The roster of a host on a link is not known.
	set(log.Default_DEFAULT_ROSTER, nil, nil)
	f.service.Accounts.Hosts = nil
	if got, want := decide(romeo, nil), "if_contact contact "; got != want {
		t.Errorf("on a link: got %q, want %q", got, want)
	}
	if r, err = f.client.Explain(t.Context(), connect.NewRequest(&adminv1.ExplainRequest{Owner: juliet, Id: m.Id})); err != nil ||
		r.Msg.Decision.Verdict != adminv1.Verdict_VERDICT_ARCHIVED || r.Msg.Decision.RosterHere {
		t.Errorf("why, on a link: %v, %v", r, err)
	}
}
