package projections

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/oklog/ulid/v2"
	"golang.org/x/mod/sumdb/tlog"
	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	"mamlog/audit"
	"mamlog/log"
)

// model is a naive archive: it keeps everything in slices and answers by
// looking at all of it.
type model struct {
	messages []Row // in order
	byID     map[ulid.ULID]*log.MessageArchived
	prefs    map[string]*log.Preferences
	history  map[string]int
	accounts map[string]bool
	roster   map[string]bool // "owner contact"
	cut      map[string]ulid.ULID
	audit    []tlog.Hash // leaves
}

func newModel() *model {
	return &model{
		byID:  make(map[ulid.ULID]*log.MessageArchived),
		prefs: make(map[string]*log.Preferences), history: make(map[string]int),
		accounts: make(map[string]bool), roster: make(map[string]bool), cut: make(map[string]ulid.ULID),
	}
}

func (m *model) matches(q Query, r Row) bool {
	e := m.byID[r.ID]
	t := log.IDTime(r.ID)
	switch {
	case e.Owner != q.Owner,
		!q.NotBefore.IsZero() && t.Before(q.NotBefore),
		!q.Since.IsZero() && t.Before(q.Since),
		!q.Until.IsZero() && t.After(q.Until),
		q.After != (ulid.ULID{}) && r.ID.Compare(q.After) <= 0,
		q.Before != (ulid.ULID{}) && r.ID.Compare(q.Before) >= 0,
		q.IDs != nil && !slices.Contains(q.IDs, r.ID):
		return false
	}
	if q.With == "" {
		return true
	}
	if e.Direction == log.Direction_DIRECTION_ROOM {
		return q.With == e.Peer && e.Peer != e.Owner
	}
	return q.With == e.Peer || q.With == bareJID(e.Peer) || q.With == e.AlsoPeer
}

// last is the greatest id that owner's archive has had.
func (m *model) last(owner string) (id ulid.ULID) {
	id = m.cut[owner]
	for _, r := range m.messages {
		if r.Owner == owner && r.ID.Compare(id) > 0 {
			id = r.ID
		}
	}
	return id
}

// size is what a query's MaxBytes counts of a row.
func (m *model) size(q Query, id ulid.ULID) int {
	return len(appendContent(nil, m.byID[id], 1)) + q.RowBytes
}

func (m *model) query(q Query) (page Page, err error) {
	for _, id := range append([]ulid.ULID{q.After, q.Before, q.PageAfter, q.PageBefore}, q.IDs...) {
		if id == (ulid.ULID{}) {
			continue
		}
		if e := m.byID[id]; e == nil || e.Owner != q.Owner || !q.NotBefore.IsZero() && log.IDTime(id).Before(q.NotBefore) {
			return Page{}, &NotFoundError{id}
		}
	}
	var set []Row
	for _, r := range m.messages {
		if m.matches(q, r) {
			set = append(set, r)
		}
	}
	page.Count = len(set)
	from, to := 0, len(set)
	for from < to && q.PageAfter != (ulid.ULID{}) && set[from].ID.Compare(q.PageAfter) <= 0 {
		from++
	}
	for to > from && q.PageBefore != (ulid.ULID{}) && set[to-1].ID.Compare(q.PageBefore) >= 0 {
		to--
	}
	if !q.Backward {
		from = min(max(from, q.Index), to)
	}
	left := set[from:to]
	bytes := 0
	for len(page.Rows) < min(len(left), q.Max) && (q.MaxBytes == 0 || bytes < q.MaxBytes) {
		if q.Backward {
			page.Rows = left[len(left)-len(page.Rows)-1:]
			bytes += m.size(q, page.Rows[0].ID)
		} else {
			page.Rows = left[:len(page.Rows)+1]
			bytes += m.size(q, page.Rows[len(page.Rows)-1].ID)
		}
	}
	page.Complete = len(page.Rows) == len(left)
	if len(page.Rows) > 0 {
		page.Index = slices.IndexFunc(set, func(r Row) bool { return r.ID == page.Rows[0].ID })
	}
	return page, nil
}

// machine runs random operations on a log with its projections and on the
// model.
type machine struct {
	t     *rapid.T
	fs    *vfs.MemFS
	now   time.Time
	clock *log.Clock
	keep  time.Duration
	log   *log.Log
	store *Store
	class log.Class
	model *model
}

var (
	owners = []string{"a@h", "b@h", "ab@h", room}
	peers  = []string{"b@h", "b@h/x", "b@h/y", "c@i", "c@i/z", "i", "a@h", "a@h/x", "ab@h", room + "/nick"}
	nicks  = []string{room, room + "/nick", room + "/b@h"}
)

const room = "r@h"

func (m *machine) open() {
	var err error
	m.clock = log.NewClock(func() time.Time { return m.now })
	if m.log, err = log.Open("log", log.Options{FS: m.fs, Clock: m.clock}); err != nil {
		m.t.Fatal(err)
	}
	m.store, err = Open("rows", m.log, Options{
		FS: m.fs, Retention: func(log.Class) time.Duration { return m.keep },
		tallies: rapid.SampledFrom([]int{1, 3, 20, 0}).Draw(m.t, "tallies"),
		tail:    rapid.SampledFrom([]int{1, 500, 5000, 0}).Draw(m.t, "tail"),
	})
	if err != nil {
		m.t.Fatal(err)
	}
	if m.class, err = m.log.Class("h"); err != nil {
		m.t.Fatal(err)
	}
}

func (m *machine) close() {
	if err := errors.Join(m.log.Close(), m.store.Close()); err != nil {
		m.t.Fatal(err)
	}
}

func (m *machine) append(e *log.Event, c log.Class) ulid.ULID {
	ids, err := m.log.AppendWait(context.Background(), log.Entry{Class: c, Event: e})
	if err != nil {
		m.t.Fatal(err)
	}
	m.leaf(ids[0])
	return ids[0]
}

// leaf adds an audit record to the model's tree, which is all its leaves.
func (m *machine) leaf(id ulid.ULID) {
	r, ok, err := m.log.Get(log.Audit, id)
	if err != nil || !ok {
		m.t.Fatalf("audit record %s: %v, %v", id, ok, err)
	}
	m.model.audit = append(m.model.audit, audit.LeafHash(id, audit.EventSum(r.Stored)))
}

// merkle is the root over leaves as RFC 6962 section 2.1 defines it.
func merkle(leaves []tlog.Hash) tlog.Hash {
	switch len(leaves) {
	case 0:
		return sha256.Sum256(nil)
	case 1:
		return leaves[0]
	}
	k := 1
	for 2*k < len(leaves) {
		k *= 2
	}
	return tlog.NodeHash(merkle(leaves[:k]), merkle(leaves[k:]))
}

func (m *machine) Message(t *rapid.T) {
	most := 20
	quick := rapid.IntRange(0, 3).Draw(t, "all at once") == 0 // and so in one bucket, and in some chunks of it
	if quick {
		most = 40
	}
	for range rapid.IntRange(1, most).Draw(t, "messages") {
		m.add(m.draw(t))
		if !quick && rapid.Bool().Draw(t, "later") {
			m.now = m.now.Add(time.Duration(rapid.IntRange(1, 40*60*1000).Draw(t, "ms")) * time.Millisecond)
		}
	}
}

// Import appends messages of the past, in batches with others.
func (m *machine) Import(t *rapid.T) {
	last := make(map[string]ulid.ULID)
	var events []*log.MessageArchived
	for range rapid.IntRange(1, 10).Draw(t, "imports") {
		e := m.draw(t)
		if _, ok := last[e.Owner]; !ok {
			last[e.Owner] = m.model.last(e.Owner)
		}
		at := m.clock.Now().Add(-time.Duration(rapid.IntRange(0, 20*60).Draw(t, "minutes ago")) * time.Minute)
		id, ok := m.clock.Past(at, last[e.Owner])
		if !ok {
			continue
		}
		last[e.Owner] = id
		e.ArchiveId, e.Reason, e.DecidedBy = id[:], log.Reason_REASON_IMPORT, nil
		events = append(events, e)
	}
	m.add(events...)
}

// draw makes a message up.
func (m *machine) draw(t *rapid.T) *log.MessageArchived {
	e := &log.MessageArchived{
		Owner:     rapid.SampledFrom(owners).Draw(t, "owner"),
		Peer:      rapid.SampledFrom(peers).Draw(t, "peer"),
		Direction: log.Direction_DIRECTION_IN,
		Reason:    log.Reason_REASON_BODY,
		Stanza:    []byte(rapid.StringN(1, 40, -1).Draw(t, "stanza")),
	}
	if rapid.IntRange(0, 19).Draw(t, "large") == 0 {
		e.Stanza = bytes.Repeat(e.Stanza, chunkLarge/len(e.Stanza)+1)
	}
	switch {
	case e.Owner == room:
		e.Peer, e.Direction = rapid.SampledFrom(nicks).Draw(t, "nick"), log.Direction_DIRECTION_ROOM
		e.Sender = rapid.SampledFrom([]string{"", "b@h/x"}).Draw(t, "sender")
		e.Whois = rapid.Bool().Draw(t, "whois")
	case e.Owner == bareJID(e.Peer):
		e.Direction, e.AlsoPeer = log.Direction_DIRECTION_SELF, e.Owner+"/other"
	}
	if rapid.IntRange(0, 3).Draw(t, "stamped") == 0 {
		e.SentUnixMs = m.now.Add(-time.Duration(rapid.IntRange(1, 1e9).Draw(t, "seconds ago")) * time.Second).UnixMilli()
	}
	return e
}

// add appends messages together.
func (m *machine) add(events ...*log.MessageArchived) {
	entries := make([]log.Entry, len(events))
	for i, e := range events {
		entries[i] = log.Entry{Class: m.class, Event: &log.Event{Kind: &log.Event_Message{Message: e}}}
	}
	ids, err := m.log.AppendWait(context.Background(), entries...)
	if err != nil {
		m.t.Fatal(err)
	}
	for i, e := range events {
		m.model.byID[ids[i]] = e
		m.model.messages = append(m.model.messages, Row{
			ID: ids[i], Owner: e.Owner, Stanza: e.Stanza,
			Imported: e.Reason == log.Reason_REASON_IMPORT, Sender: e.Sender, Whois: e.Whois, sent: e.SentUnixMs,
		})
	}
}

func (m *machine) ClockSetBack(t *rapid.T) { m.now = m.now.Add(-time.Hour) }

func (m *machine) Preferences(t *rapid.T) {
	owner := rapid.SampledFrom(owners).Draw(t, "owner")
	var after *log.Preferences
	if rapid.Bool().Draw(t, "own") {
		after = &log.Preferences{Default: log.Default(rapid.IntRange(1, 3).Draw(t, "default")), Never: []string{"x@y"}}
	}
	m.append(&log.Event{Kind: &log.Event_Preferences{Preferences: &log.PreferencesChanged{
		Owner: owner, Before: m.model.prefs[owner], After: after, Actor: owner + "/r",
	}}}, log.Audit)
	m.model.prefs[owner] = after
	m.model.history[owner]++
}

func (m *machine) AccountAndRoster(t *rapid.T) {
	owner := rapid.SampledFrom(owners).Draw(t, "owner")
	switch rapid.IntRange(0, 3).Draw(t, "what") {
	case 0:
		m.append(&log.Event{Kind: &log.Event_Account{Account: &log.AccountChanged{Owner: owner, Credentials: &log.Credentials{}}}}, log.Audit)
		m.model.accounts[owner] = true
	case 1:
		m.append(&log.Event{Kind: &log.Event_Account{Account: &log.AccountChanged{Owner: owner}}}, log.Audit)
		delete(m.model.accounts, owner)
		for k := range m.model.roster {
			if strings.HasPrefix(k, owner+" ") {
				delete(m.model.roster, k)
			}
		}
	default:
		contact := rapid.SampledFrom([]string{"b@h", "c@i"}).Draw(t, "contact")
		listed := rapid.Bool().Draw(t, "listed")
		c := &log.RosterChanged{Owner: owner, Contact: contact}
		if listed {
			c.Item = &log.RosterItem{Contact: contact, Listed: true}
		}
		m.append(&log.Event{Kind: &log.Event_Roster{Roster: c}}, log.Audit)
		m.model.roster[owner+" "+contact] = listed
	}
}

func (m *machine) Expire(t *rapid.T) {
	cut := m.store.ExpiryCut(m.class, m.clock.Now().Add(-time.Duration(rapid.IntRange(0, 5).Draw(t, "hours"))*time.Hour))
	deleted, err := m.log.Expire(context.Background(), m.class, cut, "")
	if err != nil {
		t.Fatal(err)
	}
	if deleted {
		m.leaf(m.log.Last())
	}
	m.model.messages = slices.DeleteFunc(m.model.messages, func(r Row) bool {
		old := log.IDTime(r.ID).Before(cut)
		if old {
			delete(m.model.byID, r.ID)
		}
		return old
	})
}

// drop forgets, in the model, the messages that gone says are.
func (m *machine) drop(gone func(Row) bool) {
	m.model.messages = slices.DeleteFunc(m.model.messages, func(r Row) bool {
		if gone(r) {
			delete(m.model.byID, r.ID)
			return true
		}
		return false
	})
}

// cut takes the oldest off an archive, in steps.
func (m *machine) cut(t *rapid.T, owner string, up ulid.ULID, cause log.CutCause) {
	step := rapid.IntRange(2, 9).Draw(t, "in steps of")
	for more := true; more; {
		var err error
		if more, err = m.store.Cut(context.Background(), m.class, up, step, &log.Cut{Owner: owner, Cause: cause}); err != nil {
			t.Fatal(err)
		}
	}
	m.drop(func(r Row) bool { return r.Owner == owner && r.ID.Compare(up) <= 0 })
	m.model.cut[owner] = up
}

func (m *machine) Trim(t *rapid.T) {
	if n := len(m.model.messages); n > 0 {
		r := m.model.messages[rapid.IntRange(0, n-1).Draw(t, "trim up to")]
		m.cut(t, r.Owner, r.ID, log.CutCause_CUT_CAUSE_TRIM)
	}
}

// Quota cuts an archive to what it may hold: nothing more goes than must.
func (m *machine) Quota(t *rapid.T) {
	owner := rapid.SampledFrom(owners).Draw(t, "owner")
	keep := Usage{uint64(rapid.IntRange(0, 6).Draw(t, "messages")), uint64(rapid.IntRange(0, 80).Draw(t, "bytes"))}
	up, ok, err := m.store.Surplus(Query{Class: m.class, Owner: owner}, keep)
	if err != nil {
		t.Fatal(err)
	}
	var left Usage
	var want ulid.ULID
	for _, r := range slices.Backward(m.model.messages) {
		if r.Owner != owner {
			continue
		}
		left.Messages, left.Bytes = left.Messages+1, left.Bytes+counted(m.model.byID[r.ID])
		if keep.Messages > 0 && left.Messages > keep.Messages || keep.Bytes > 0 && left.Bytes > keep.Bytes {
			want = r.ID
			break
		}
	}
	if up != want || ok != (want != ulid.ULID{}) {
		t.Fatalf("to keep %+v of %s, cut at %s, %v; want %s", keep, owner, up, ok, want)
	}
	if ok {
		m.cut(t, owner, up, log.CutCause_CUT_CAUSE_QUOTA)
	}
}

func (m *machine) Retract(t *rapid.T) {
	n := len(m.model.messages)
	if n == 0 {
		return
	}
	at := rapid.IntRange(0, n-1).Draw(t, "retract")
	r := &m.model.messages[at]
	page, err := m.store.Query(Query{Class: m.class, Owner: r.Owner, IDs: []ulid.ULID{r.ID}, Max: 1})
	if err != nil {
		t.Fatal(err)
	}
	tombstone := []byte(rapid.StringN(1, 5, -1).Draw(t, "tombstone"))
	e, err := m.store.Retraction(m.class, page.Rows[0], tombstone)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := m.log.AppendWait(context.Background(), e); err != nil {
		t.Fatal(err)
	}
	r.Stanza = tombstone
	event := proto.Clone(m.model.byID[r.ID]).(*log.MessageArchived)
	event.Stanza, event.StanzaBytes = tombstone, counted(event)
	m.model.byID[r.ID] = event
}

func (m *machine) Erase(t *rapid.T) {
	owner := rapid.SampledFrom(owners).Draw(t, "owner")
	ctx := context.Background()
	order := m.append(&log.Event{Kind: &log.Event_Erase{Erase: &log.Erase{Owner: owner}}}, log.Audit)
	var owned log.Owned
	if err := errors.Join(m.log.FindOwned(ctx, m.class, owner, &owned), m.log.Erase(ctx, m.class, owner, "x", &owned)); err != nil {
		t.Fatal(err)
	}
	personal, err := m.log.PersonalOf(owner, order, false)
	if err != nil {
		t.Fatal(err)
	}
	ids, err := m.log.AppendWait(ctx, log.Entry{Class: log.Audit, Forget: personal, Event: &log.Event{Kind: &log.Event_Erased{
		Erased: &log.Erased{Owner: owner, UpTo: order[:]},
	}}})
	if err != nil {
		t.Fatal(err)
	}
	m.leaf(ids[0])
	m.drop(func(r Row) bool { return r.Owner == owner })
	delete(m.model.prefs, owner)
	for k := range m.model.roster {
		if strings.HasPrefix(k, owner+" ") {
			delete(m.model.roster, k)
		}
	}
	for c, err := range m.store.PreferenceHistory(owner) {
		if err != nil || len(c.Change.GetAfter().GetNever())+len(c.Change.GetBefore().GetNever()) > 0 {
			t.Fatalf("%s was erased, and its preferences are %v, %v", owner, c.Change, err)
		}
	}
}

func (m *machine) Scrub(t *rapid.T) {
	err := m.log.Scrub(context.Background(), m.class, func(from, to ulid.ULID) error {
		return m.store.Scrub(context.Background(), m.class, from, to)
	})
	err = errors.Join(err, m.log.Scrub(context.Background(), log.Audit, func(_, _ ulid.ULID) error {
		return m.store.ScrubPersonal(context.Background())
	}))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []log.Class{m.class, log.Audit} {
		if from, to, ok := m.log.Owed(c); ok {
			t.Fatalf("after a scrub, %s to %s of the class %d is owed", from, to, c)
		}
	}
}

func (m *machine) Rebuild(t *rapid.T) {
	before := dump(t, m.store)
	if err := m.store.Rebuild(nil); err != nil {
		t.Fatal(err)
	}
	if after := dump(t, m.store); before != after {
		t.Fatalf("rebuilt rows differ:\n%s\nwere\n%s", after, before)
	}
}

func (m *machine) CheckStore(t *rapid.T) {
	report, err := m.store.Check(context.Background(), nil)
	if err != nil || report.Differences > 0 {
		t.Fatalf("check: %+v, %v", report, err)
	}
}

func (m *machine) Restart(t *rapid.T) { m.close(); m.open() }

// Crash drops all that was not synced: the newest rows above all, which have
// no write-ahead log.
func (m *machine) Crash(t *rapid.T) {
	old, store := m.log, m.store
	m.fs = m.fs.CrashClone(vfs.CrashCloneCfg{})
	if err := errors.Join(old.Close(), store.Close()); err != nil {
		t.Fatal(err)
	}
	m.open()
}

// OtherRetention changes the time buckets, which makes the next start rebuild.
func (m *machine) OtherRetention(t *rapid.T) {
	m.keep = rapid.SampledFrom([]time.Duration{time.Hour, 48 * time.Hour, 0}).Draw(t, "keep")
	m.close()
	m.open()
}

func (m *machine) Query(t *rapid.T) {
	q := Query{
		Class:    m.class,
		Owner:    rapid.SampledFrom(owners).Draw(t, "owner"),
		With:     rapid.SampledFrom(append(append([]string{"", "", "a@h/other"}, peers...), nicks...)).Draw(t, "with"),
		Max:      rapid.IntRange(0, 8).Draw(t, "max"),
		Backward: rapid.Bool().Draw(t, "backward"),
	}
	if rapid.IntRange(0, 3).Draw(t, "short") == 0 {
		q.MaxBytes, q.RowBytes = rapid.IntRange(1, 400).Draw(t, "bytes"), rapid.IntRange(0, 100).Draw(t, "bytes a row")
	}
	moment := func(name string) (at time.Time) {
		if n := len(m.model.messages); n > 0 && rapid.IntRange(0, 3).Draw(t, name) == 0 {
			at = log.IDTime(m.model.messages[rapid.IntRange(0, n-1).Draw(t, name+" of")].ID)
			at = at.Add(time.Duration(rapid.SampledFrom([]int{0, 0, 1, -1, 500_000}).Draw(t, name+" shift")))
		}
		return at
	}
	q.Since, q.Until, q.NotBefore = moment("since"), moment("until"), moment("floor")
	id := func(name string) (id ulid.ULID) {
		if n := len(m.model.messages); n > 0 && rapid.IntRange(0, 4).Draw(t, name) == 0 {
			id = m.model.messages[rapid.IntRange(0, n-1).Draw(t, name+" of")].ID
		}
		return id
	}
	q.After, q.Before, q.PageAfter, q.PageBefore = id("after"), id("before"), id("page after"), id("page before")
	if rapid.IntRange(0, 5).Draw(t, "ids") == 0 {
		for range rapid.IntRange(1, 5).Draw(t, "how many ids") {
			if i := id("id"); i != (ulid.ULID{}) {
				q.IDs = append(q.IDs, i)
			}
		}
	}
	if rapid.IntRange(0, 5).Draw(t, "by index") == 0 {
		q.Index = rapid.IntRange(0, 30).Draw(t, "index")
	}
	got, err := m.store.Query(q)
	want, wantErr := m.model.query(q)
	if fmt.Sprint(err) != fmt.Sprint(wantErr) {
		// Several ids may be missing, and either may be named.
		var a, b *NotFoundError
		if !errors.As(err, &a) || !errors.As(wantErr, &b) {
			t.Fatalf("%+v: error %v, want %v", q, err, wantErr)
		}
		return
	}
	if g, w := describePage(got), describePage(want); g != w {
		t.Fatalf("%+v:\ngot  %s\nwant %s", q, g, w)
	}
}

func describePage(p Page) string {
	var b strings.Builder
	fmt.Fprintf(&b, "count %d index %d complete %v:", p.Count, p.Index, p.Complete)
	for _, r := range p.Rows {
		fmt.Fprintf(&b, " %s=%q at %s by %q %v %v", r.ID, r.Stanza, r.Time(), r.Sender, r.Whois, r.Imported)
	}
	return b.String()
}

func (m *machine) State(t *rapid.T) {
	head, err := audit.HeadOf("h", m.store.AuditTree())
	if err != nil || head.Size != int64(len(m.model.audit)) || head.Root != merkle(m.model.audit) {
		t.Fatalf("audit tree: %v, %v; want %d leaves under %v", head, err, len(m.model.audit), merkle(m.model.audit))
	}
	for _, o := range owners {
		p, _, err := m.store.Preferences(o)
		if err != nil || (p == nil) != (m.model.prefs[o] == nil) || p.GetDefault() != m.model.prefs[o].GetDefault() {
			t.Fatalf("preferences of %s: %v, %v; want %v", o, p, err, m.model.prefs[o])
		}
		n := 0
		for _, err := range m.store.PreferenceHistory(o) {
			if err != nil {
				t.Fatal(err)
			}
			n++
		}
		if n != m.model.history[o] {
			t.Fatalf("%s has %d preference changes, want %d", o, n, m.model.history[o])
		}
		if a, err := m.store.Account(o); err != nil || (a != nil) != m.model.accounts[o] {
			t.Fatalf("account %s: %v, %v", o, a, err)
		}
		for _, c := range []string{"b@h", "c@i"} {
			if ok, err := m.store.HasContact(o, c); err != nil || ok != m.model.roster[o+" "+c] {
				t.Fatalf("%s has %s in the roster: %v, %v", o, c, ok, err)
			}
		}
		var first, last ulid.ULID
		for _, r := range m.model.messages {
			if r.Owner != o {
				continue
			}
			if first == (ulid.ULID{}) {
				first = r.ID
			}
			last = r.ID
		}
		var uses Usage
		for _, r := range m.model.messages {
			if r.Owner == o {
				uses.Messages, uses.Bytes = uses.Messages+1, uses.Bytes+counted(m.model.byID[r.ID])
			}
		}
		if u, err := m.store.Usage(Query{Class: m.class, Owner: o}); err != nil || u != uses {
			t.Fatalf("%s uses %+v, %v; want %+v", o, u, err, uses)
		}
		f, l, ok, err := m.store.Bounds(m.class, o, time.Time{}, ulid.ULID{})
		if err != nil || f.ID != first || l.ID != last || ok != (first != ulid.ULID{}) {
			t.Fatalf("bounds of %s: %s %s %v %v, want %s %s", o, f.ID, l.ID, ok, err, first, last)
		}
	}
}

// dump is all rows as text, meta rows apart.
func dump(t *rapid.T, s *Store) string {
	if err := s.settleTail(); err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	err := s.read(func(r *rows) error {
		it, err := r.db.NewIter(&pebble.IterOptions{LowerBound: []byte{kindBucket}})
		if err != nil {
			return err
		}
		for it.First(); it.Valid(); it.Next() {
			fmt.Fprintf(&b, "%x=%x\n", it.Key(), it.Value())
		}
		return it.Close()
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// Invariant 4 and what the projections promise of queries: whatever happens, the
// rows answer as the naive model does, and a rebuild gives the same bytes.
func TestRowsAgreeWithTheModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := &machine{
			t: t, fs: vfs.NewCrashableMem(), model: newModel(), keep: time.Hour,
			now: time.Date(2026, 11, 22, 20, 0, 0, 0, time.UTC),
		}
		m.open()
		defer m.close()
		actions := rapid.StateMachineActions(m)
		// Most of the time write and ask.
		actions["Message2"], actions["Query2"], actions["Query3"] = m.Message, m.Query, m.Query
		t.Repeat(actions)
	})
}

// Check is an action by name of StateMachineActions: it runs after every step.
func (m *machine) Check(t *rapid.T) { m.State(t) }
