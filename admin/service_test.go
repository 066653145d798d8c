package admin

import (
	"context"
	"errors"
	"fmt"
	"os/user"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"connectrpc.com/connect"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/oklog/ulid/v2"
	"google.golang.org/protobuf/types/known/timestamppb"
	"mellium.im/xmpp/jid"

	adminv1 "mamlog/admin/v1"
	"mamlog/admin/v1/adminv1connect"
	"mamlog/attach/c2s"
	"mamlog/audit"
	"mamlog/log"
	"mamlog/projections"
	"mamlog/xep0313"
	"mamlog/xep0313/stanza"
)

// fixture is a service on stores in memory, with a clock that the test moves.
type fixture struct {
	*testing.T
	now     time.Time
	log     *log.Log
	rows    *projections.Store
	options xep0313.Options
	archive *xep0313.Archive
	service *Service
	client  adminv1connect.AdminServiceClient
	kicked  []string
}

func newFixture(t *testing.T) *fixture {
	f := &fixture{T: t, now: time.Date(2026, 11, 22, 20, 0, 0, 0, time.UTC), options: xep0313.DefaultOptions()}
	var err error
	clock := log.NewClock(func() time.Time { return f.now })
	if f.log, err = log.Open("log", log.Options{FS: vfs.NewMem(), Clock: clock}); err != nil {
		t.Fatal(err)
	}
	if f.rows, err = projections.Open("rows", f.log, projections.Options{FS: vfs.NewMem()}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(f.log.Close(), f.rows.Close()); err != nil {
			t.Error(err)
		}
	})
	f.configure()
	book, err := audit.OpenBook(t.TempDir(), "mamlog/test.example")
	if err != nil {
		t.Fatal(err)
	}
	f.service = New(Config{
		Hosts: []string{"test.example"}, Main: f.rows, MainLog: f.log, Archive: f.archive, Book: book,
		Accounts: &c2s.Accounts{Log: f.log, Projections: f.rows, Hosts: []string{"test.example"}},
		Stores:   map[string]Store{"main": {Log: f.log, Projections: f.rows}},
		Kick:     func(j jid.JID) { f.kicked = append(f.kicked, j.String()) },
	})
	client, stop := f.service.Local()
	f.client = client
	t.Cleanup(stop)
	return f
}

// configure makes the archive anew, as after a change of the configuration.
func (f *fixture) configure() {
	f.Helper()
	var err error
	f.archive, err = xep0313.New(f.Context(), xep0313.Config{
		Log: f.log, Projections: f.rows, Contacts: f.rows,
		Hosts: []xep0313.Host{{Name: "test.example", Options: f.options, Log: f.log, Archives: f.rows}},
	})
	if err != nil {
		f.Fatal(err)
	}
	if f.service != nil {
		f.service.Archive = f.archive
	}
}

func (f *fixture) add(name string) {
	f.Helper()
	if _, err := f.client.AddUser(f.Context(), connect.NewRequest(&adminv1.AddUserRequest{Jid: name, Password: "secret"})); err != nil {
		f.Fatal(err)
	}
}

func (f *fixture) send(from, to, body string) {
	f.Helper()
	done := make(chan xep0313.Delivery, 1)
	err := f.archive.Record(xep0313.Message{
		Stanza: stanza.New(stanza.NSClient, "message", "type", "chat", "from", from, "to", to).
			Add(stanza.New(stanza.NSClient, "body").AddText(body)),
		From: jid.MustParse(from), To: jid.MustParse(to), FromLocal: true, ToLocal: true,
	}, func(d xep0313.Delivery) { done <- d })
	if err != nil {
		f.Fatal(err)
	}
	if d := <-done; d.Err != nil {
		f.Fatal(d.Err)
	}
}

// code is the code of the error that a call must give.
func (f *fixture) code(what string, err error, want connect.Code) {
	f.Helper()
	if connect.CodeOf(err) != want || err == nil {
		f.Errorf("%s: got %v, want the code %v", what, err, want)
	}
}

// each returns the messages of a stream.
func each[T any](s *connect.ServerStreamForClient[T], err error) (all []*T, _ error) {
	if err != nil {
		return nil, err
	}
	defer s.Close()
	for s.Receive() {
		all = append(all, s.Msg())
	}
	return all, s.Err()
}

func me(t *testing.T) string {
	u, err := user.Current()
	if err != nil {
		t.Fatal(err)
	}
	return "operator:" + u.Username
}

// TestReadsLeaveATrace: what an operator reads is in the log before it is sent,
// with who and what.
func TestReadsLeaveATrace(t *testing.T) {
	f := newFixture(t)
	f.add("juliet@test.example")
	f.send("juliet@test.example/a", "romeo@test.example/b", "hello")
	start := timestamppb.New(f.now)
	pages, err := each(f.client.QueryArchive(t.Context(), connect.NewRequest(&adminv1.QueryArchiveRequest{
		Owner: "juliet@test.example", With: "romeo@test.example", Start: start, Last: 7,
	})))
	if err != nil || len(pages) != 1 || len(pages[0].Messages) != 1 || pages[0].Count != 1 {
		t.Fatalf("got %v, %v", pages, err)
	}
	if m := pages[0].Messages[0]; m.Body != "hello" || m.Reason != log.Reason_REASON_BODY || m.DecidedBy == "" {
		t.Errorf("got %v", m)
	}
	var reads []*log.ArchiveRead
	for r, err := range f.log.Scan(ulid.ULID{}) {
		if err != nil {
			t.Fatal(err)
		}
		if read := r.Event.GetRead(); read != nil {
			reads = append(reads, read)
		}
	}
	if len(reads) != 1 || reads[0].Owner != "juliet@test.example" || reads[0].Actor != me(t) ||
		reads[0].Query != "with=romeo@test.example start=2026-11-22T20:00:00Z last=7" {
		t.Errorf("got the reads %v", reads)
	}

	// A refused query reads nothing.
	_, err = each(f.client.QueryArchive(t.Context(), connect.NewRequest(&adminv1.QueryArchiveRequest{Owner: "juliet@test.example", After: "x"})))
	f.code("after=x", err, connect.CodeInvalidArgument)
	_, err = each(f.client.QueryArchive(t.Context(), connect.NewRequest(&adminv1.QueryArchiveRequest{Owner: "paris@test.example"})))
	f.code("nobody", err, connect.CodeNotFound)
	_, err = each(f.client.QueryArchive(t.Context(), connect.NewRequest(&adminv1.QueryArchiveRequest{Owner: "juliet@test.example", First: 1, Last: 1})))
	f.code("first and last", err, connect.CodeInvalidArgument)
}

// TestWhoExpired: what an operator lets expire bears their name, what mamlog deletes
// by itself doesn't.
func TestWhoExpired(t *testing.T) {
	const juliet, romeo = "juliet@test.example", "romeo@test.example"
	f := newFixture(t)
	f.add(juliet)
	seconds := uint64((8 * time.Hour).Seconds())
	if _, err := f.client.SetRetention(t.Context(), connect.NewRequest(&adminv1.SetRetentionRequest{
		Owner: juliet, ExpiresAfter: &adminv1.Setting{Value: &seconds},
	})); err != nil {
		t.Fatal(err)
	}
	expire := func() {
		t.Helper()
		if _, err := f.client.Expire(t.Context(), connect.NewRequest(&adminv1.ExpireRequest{Host: "test.example"})); err != nil {
			t.Fatal(err)
		}
	}
	cleanUp := func() { // as at archive_cleanup_interval
		t.Helper()
		done := func() bool {
			e := f.audit(&adminv1.ListAuditRequest{Kinds: []string{"expired"}})
			return len(e) > 0 && e[len(e)-1].Event.GetExpired().GetActor() == ""
		}
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		go f.archive.RunExpiry(ctx)
		for deadline := time.Now().Add(time.Minute); !done(); time.Sleep(time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatal("nothing expires by itself")
			}
		}
	}
	for _, step := range []struct {
		after time.Duration
		do    func()
	}{{24 * time.Hour, expire}, {800 * 24 * time.Hour, expire}, {800 * 24 * time.Hour, cleanUp}} {
		f.send(romeo+"/a", juliet, "hello")
		f.send(juliet+"/a", "nurse@test.example", "hello") // whose retention is the host's
		f.now = f.now.Add(step.after)
		step.do()
	}
	var got []string
	for _, e := range f.audit(&adminv1.ListAuditRequest{Kinds: []string{"expired", "cut"}}) {
		got = append(got, e.Kind+" by "+e.Actor)
	}
	if want := []string{"cut by " + me(t), "expired by " + me(t), "expired by "}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

// TestLargePages: pages of large messages are sent in parts, and none is lost.
func TestLargePages(t *testing.T) {
	f := newFixture(t)
	large := string(slices.Repeat([]byte("x"), 100<<10))
	for i := range 12 {
		f.send("juliet@test.example/a", "romeo@test.example/b", fmt.Sprintf("%d %s", i, large))
	}
	parts, err := each(f.client.QueryArchive(t.Context(), connect.NewRequest(&adminv1.QueryArchiveRequest{Owner: "juliet@test.example"})))
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, p := range parts {
		for _, m := range p.Messages {
			if want := fmt.Sprintf("%d ", n); m.Body[:len(want)] != want {
				t.Errorf("message %d begins with %q", n, m.Body[:5])
			}
			n++
		}
	}
	if n != 12 || len(parts) < 4 {
		t.Errorf("got %d messages in %d parts, want 12 in several", n, len(parts))
	}
}

// TestHistory interleaves changes of policy and preferences, and asks at every
// moment what was in force.
func TestHistory(t *testing.T) {
	f := newFixture(t)
	const juliet = "juliet@test.example"
	f.add(juliet)
	type moment struct {
		at      time.Time
		byDef   log.Default
		own     bool
		entries int
	}
	var moments []moment
	step := func(byDef log.Default, own bool) {
		moments = append(moments, moment{f.now, byDef, own, len(moments) + 1})
		f.now = f.now.Add(time.Hour)
	}
	set := func(d log.Default) {
		t.Helper()
		r, err := f.client.SetPreferences(t.Context(), connect.NewRequest(&adminv1.SetPreferencesRequest{Owner: juliet, Default: d}))
		if err != nil {
			t.Fatal(err)
		}
		if in := r.Msg.GetInForce(); !in.GetOwn() || in.GetPreferences().GetDefault() != d || in.GetDecidedBy().GetPreferences().GetActor() != me(t) {
			t.Errorf("set: got %v", in)
		}
	}
	step(log.Default_DEFAULT_ALWAYS, false) // the policy at the start
	f.options.SmartEnable = true
	f.configure()
	step(log.Default_DEFAULT_NEVER, false) // until the first use
	set(log.Default_DEFAULT_ROSTER)
	step(log.Default_DEFAULT_ROSTER, true)
	f.options.SmartEnable, f.options.DefaultPolicy = false, log.Default_DEFAULT_NEVER
	f.configure()
	step(log.Default_DEFAULT_ROSTER, true) // the policy doesn't concern her
	set(log.Default_DEFAULT_ALWAYS)
	step(log.Default_DEFAULT_ALWAYS, true)

	get := func(at *timestamppb.Timestamp) (*adminv1.PreferencesInForce, error) {
		r, err := f.client.GetPreferences(t.Context(), connect.NewRequest(&adminv1.GetPreferencesRequest{Owner: juliet, At: at}))
		if err != nil {
			return nil, err
		}
		return r.Msg.GetInForce(), nil
	}
	entries, err := each(f.client.ListPreferenceHistory(t.Context(), connect.NewRequest(&adminv1.ListPreferenceHistoryRequest{Owner: juliet})))
	if err != nil || len(entries) != len(moments) {
		t.Fatalf("got %d entries, %v; want %d", len(entries), err, len(moments))
	}
	last := ""
	for i, e := range entries {
		if e.Entry.Id <= last || !e.Entry.Time.AsTime().Equal(moments[i].at) {
			t.Errorf("entry %d is %v, want it at %v", i, e.Entry, moments[i].at)
		}
		last = e.Entry.Id
	}
	for i, m := range moments {
		for _, at := range []time.Time{m.at, m.at.Add(59 * time.Minute)} {
			in, err := get(timestamppb.New(at))
			if err != nil || in.GetPreferences().GetDefault() != m.byDef || in.GetOwn() != m.own {
				t.Errorf("at %v (moment %d): got %v, %v; want %v", at, i, in, err, m)
			}
		}
	}
	now, err := get(nil)
	then, err2 := get(timestamppb.New(f.now))
	if err != nil || err2 != nil || now.String() != then.String() {
		t.Errorf("now %v, %v; at this time %v, %v", now, err, then, err2)
	}
	_, err = get(timestamppb.New(moments[0].at.Add(-time.Millisecond)))
	f.code("before the first event", err, connect.CodeFailedPrecondition)
}

func TestDeleteEndsSessions(t *testing.T) {
	f := newFixture(t)
	f.add("juliet@test.example")
	if _, err := f.client.DeleteUser(t.Context(), connect.NewRequest(&adminv1.DeleteUserRequest{Jid: "juliet@test.example"})); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(f.kicked, []string{"juliet@test.example"}) {
		t.Errorf("kicked %v", f.kicked)
	}
	_, err := f.client.DeleteUser(t.Context(), connect.NewRequest(&adminv1.DeleteUserRequest{Jid: "juliet@test.example"}))
	f.code("again", err, connect.CodeNotFound)
	if len(f.kicked) != 1 {
		t.Errorf("kicked %v", f.kicked)
	}
}

// Whoever takes the name of a deleted account finds nothing that was set for it,
// and nothing can be set in between.
func TestDeletedUserIsNotThere(t *testing.T) {
	f := newFixture(t)
	const user = "juliet@test.example"
	set := func() error {
		_, err := f.client.SetPreferences(t.Context(), connect.NewRequest(&adminv1.SetPreferencesRequest{Owner: user, Default: log.Default_DEFAULT_NEVER}))
		return err
	}
	f.add(user)
	if err := set(); err != nil {
		t.Fatal(err)
	}
	if _, err := f.client.DeleteUser(t.Context(), connect.NewRequest(&adminv1.DeleteUserRequest{Jid: user})); err != nil {
		t.Fatal(err)
	}
	f.code("set", set(), connect.CodeNotFound)
	_, err := f.client.GetPreferences(t.Context(), connect.NewRequest(&adminv1.GetPreferencesRequest{Owner: user}))
	f.code("get", err, connect.CodeNotFound)
	_, err = each(f.client.QueryArchive(t.Context(), connect.NewRequest(&adminv1.QueryArchiveRequest{Owner: user})))
	f.code("query", err, connect.CodeNotFound)
	history, err := each(f.client.ListPreferenceHistory(t.Context(), connect.NewRequest(&adminv1.ListPreferenceHistoryRequest{Owner: user})))
	if err != nil || len(history) == 0 {
		t.Errorf("the history is gone: %v, %v", history, err)
	}
	f.add(user)
	r, err := f.client.GetPreferences(t.Context(), connect.NewRequest(&adminv1.GetPreferencesRequest{Owner: user}))
	if err != nil || r.Msg.GetInForce().GetPreferences().GetDefault() != log.Default_DEFAULT_ALWAYS {
		t.Errorf("the new account starts with %v, %v", r, err)
	}
}

// TestCallerOfSocket: the actor is the peer that the kernel names.
func TestCallerOfSocket(t *testing.T) {
	f := newFixture(t)
	path := filepath.Join(t.TempDir(), "admin.sock")
	l, err := Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	server := f.service.Server()
	go server.Serve(l)
	defer server.Close()
	client, err := Dial(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := client.AddUser(t.Context(), connect.NewRequest(&adminv1.AddUserRequest{Jid: "juliet@test.example", Password: "x"})); err != nil {
		t.Fatal(err)
	}
	actor := ""
	for r, err := range f.log.Scan(ulid.ULID{}) {
		if err != nil {
			t.Fatal(err)
		}
		if a := r.Event.GetAccount(); a != nil {
			actor = a.GetActor()
		}
	}
	if actor != me(t) {
		t.Errorf("the actor is %q, want %q", actor, me(t))
	}
}

func TestMaintenanceIsOneAtATime(t *testing.T) {
	f := newFixture(t)
	f.service.maintenance.Lock()
	_, err := each(f.client.Check(t.Context(), connect.NewRequest(&adminv1.CheckRequest{})))
	f.code("a check beside a rebuild", err, connect.CodeFailedPrecondition)
	f.service.maintenance.Unlock()
	r, err := each(f.client.Check(t.Context(), connect.NewRequest(&adminv1.CheckRequest{})))
	if err != nil || len(r) == 0 || !r[len(r)-1].Done || r[len(r)-1].Differences != 0 {
		t.Errorf("got %v, %v", r, err)
	}

	f.service.running.Add(1)
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	if err := f.service.Wait(ctx); err == nil {
		t.Error("Wait returns while something runs")
	}
	f.service.running.Done()
	if err := f.service.Wait(t.Context()); err != nil {
		t.Error(err)
	}
}
