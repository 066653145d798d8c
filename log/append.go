package log

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"runtime"
	"slices"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/oklog/ulid/v2"
)

// maxGroupBytes is how much may wait for the next commit before Append waits
// too.
const maxGroupBytes = 16 << 20

// Entry is an event to append.
type Entry struct {
	Class Class
	Event *Event

	// OnceOwner and OnceKey, where OnceKey isn't empty, name the append: a
	// second one with the same two within at least seven days yields the id of
	// the first and writes nothing.
	OnceOwner, OnceKey string

	// Rewrites of earlier records of the class are committed with the event.
	Rewrites []Rewrite

	// Forget is erased with the event.
	Forget Personal

	imported []ulid.ULID // of an Expired event: records that go with it
}

// A Follower is told of every record, in order, once it is durable. Messages are
// acknowledged meanwhile, so whoever reads a follower calls Log.Await before.
type Follower interface {
	// Position is the id of the last record that the follower has applied.
	Position() ulid.ULID
	// Apply takes the next records. It is called by one goroutine at a time,
	// and returns when readers of the follower see them. An error stops the log.
	Apply([]Record) error
}

// Follow brings f up to the end of the log and keeps it there: from then on no
// event but a message is acknowledged before f has applied it. progress, if not nil, is
// called now and then with how many records were applied in catching up. Follow
// must return before the first Append.
func (l *Log) Follow(f Follower, progress func(records int)) error {
	if err := l.Feed(f, progress); err != nil {
		return err
	}
	l.followers = append(l.followers, f)
	return nil
}

// feedBatch is how many records are applied at once in catching up.
const feedBatch = 1024

// Feed applies to f all records after its position, and returns.
func (l *Log) Feed(f Follower, progress func(records int)) error {
	total := 0
	batch := make([]Record, 0, feedBatch)
	apply := func() error {
		if len(batch) == 0 {
			return nil
		}
		if err := f.Apply(batch); err != nil {
			return err
		}
		total += len(batch)
		if progress != nil {
			progress(total)
		}
		batch = batch[:0]
		return nil
	}
	for r, err := range l.Scan(f.Position()) {
		if err != nil {
			return err
		}
		if batch = append(batch, r); len(batch) == cap(batch) {
			if err := apply(); err != nil {
				return err
			}
		}
	}
	return apply()
}

// group is what one commit takes.
type group struct {
	batch   *pebble.Batch
	records []Record
	once    []string // keys to take out of Log.pending when the batch is readable
	waiters []waiter
	bytes   int
	takes   int // entries that change what is in the log already
	err     error

	// Something else than messages is in it, or somebody who waits for all before it:
	// it is acknowledged when it is applied.
	other      bool
	durable    bool
	applied    chan struct{} // closed when it is, or never will be
	applyError error         // good from then on
}

type waiter struct {
	ids  []ulid.ULID
	done func([]ulid.ULID, error)
}

func (l *Log) newGroup() *group {
	return &group{batch: l.db.NewBatch(), applied: make(chan struct{})}
}

// expect makes room for as much as the group before had.
func (g *group) expect(before *group) {
	g.records = make([]Record, 0, len(before.records))
	g.waiters = make([]waiter, 0, len(before.waiters))
}

// Append queues entries to be committed together and returns. When they are
// durable, and what is not a message is applied by every follower, done is called
// with their ids (see Record.ArchiveID), in the order of entries. Callbacks come in the order of the appends, from one
// goroutine; they must not block. With no entries, done is called when
// everything appended before is durable and applied.
//
// An error from Append means that nothing was queued and done will not be
// called. An error passed to done wraps ErrFailed: whether the entries are
// durable is unknown. Append waits only while too much is queued already.
func (l *Log) Append(entries []Entry, done func(ids []ulid.ULID, err error)) error {
	return l.append(entries, done, true)
}

// AppendInCallback is Append for use in callbacks: it never waits.
func (l *Log) AppendInCallback(entries []Entry, done func(ids []ulid.ULID, err error)) error {
	return l.append(entries, done, false)
}

func (l *Log) append(entries []Entry, done func(ids []ulid.ULID, err error), wait bool) error {
	var few [4]encoding // mostly enough
	values := few[:0]
	var personal [][]byte // of audit events
	for i, e := range entries {
		public := e.Event
		if e.Class == Audit {
			if personal == nil {
				personal = make([][]byte, len(entries))
			}
			var err error
			if public, personal[i], err = detach(e.Event); err != nil {
				return fmt.Errorf("log: encode event: %w", err)
			}
		}
		v, err := encode(public)
		if err != nil {
			return fmt.Errorf("log: encode event: %w", err)
		}
		values = append(values, v)
	}
	unlock := l.lockOnce(entries)
	defer unlock()
	known, err := l.findOnce(entries)
	if err != nil {
		return err
	}

	l.mu.Lock()
	defer l.mu.Unlock()
	for wait && l.open.bytes > maxGroupBytes && !l.closed && l.err == nil && len(l.refuses) == 0 {
		l.room.Wait()
	}
	switch {
	case l.err != nil:
		return l.err
	case l.closed:
		return ErrClosed
	}
	if err := l.suspension(); err != nil && len(entries) > 0 {
		l.stats.refused.Add(1)
		return err
	}
	g := l.open
	before := g.bytes
	ids := make([]ulid.ULID, len(entries))
	for i, e := range entries {
		id, ok := known[i]
		if !ok && e.OnceKey != "" {
			id, ok = l.pending[e.OnceOwner+"\x00"+e.OnceKey] // of this very call
		}
		if ok {
			ids[i] = id
			l.stats.duplicates.Add(1)
			continue
		}
		r := Record{ID: l.clock.Next(), Class: e.Class, Event: e.Event}
		ids[i] = r.ArchiveID()
		err := errors.Join(g.add(e, &r, values[i]), g.addForget(e.Forget), l.owe(g, e))
		if personal != nil {
			err = errors.Join(err, g.addPersonal(r, personal[i]))
		}
		if err != nil {
			// A batch takes anything until memory ends; what it holds can no
			// longer be trusted.
			l.failLocked(err)
			return l.err
		}
		if e.OnceKey != "" {
			k := e.OnceOwner + "\x00" + e.OnceKey
			l.pending[k] = ids[i]
			g.once = append(g.once, k)
		}
	}
	l.queued.Add(int64(g.bytes - before))
	n := takers(entries)
	g.takes += n
	g.other = g.other || len(entries) == 0 || slices.ContainsFunc(entries, func(e Entry) bool { return e.Event.GetMessage() == nil })
	l.taking += n
	g.waiters = append(g.waiters, waiter{ids, done})
	if len(l.refuses) > 0 {
		l.releaseSoon()
	}
	l.poke()
	return nil
}

// AppendWait is Append for callers that have nothing else to do until the
// entries are durable and applied. An ended ctx ends the wait, not the append.
func (l *Log) AppendWait(ctx context.Context, entries ...Entry) ([]ulid.ULID, error) {
	type result struct {
		ids []ulid.ULID
		err error
	}
	c := make(chan result, 1)
	if err := l.Append(entries, func(ids []ulid.ULID, err error) { c <- result{ids, err} }); err != nil {
		return nil, err
	}
	select {
	case r := <-c:
		return r.ids, r.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (g *group) add(e Entry, r *Record, value encoding) error {
	op := g.batch.SetDeferred(recordKeyLen, value.size)
	appendRecordKey(op.Key[:0], r.Class, r.ID)
	value.put(op.Value)
	if r.Class == Audit {
		r.Stored = bytes.Clone(op.Value)
	}
	if err := op.Finish(); err != nil {
		return err
	}
	archived := r.ArchiveID()
	if archived != r.ID {
		if err := g.batch.Set(importKey(r.Class, archived, r.ID[:]...), nil, nil); err != nil {
			return err
		}
	}
	if e.OnceKey != "" {
		k := onceKey(generation(r.Time()), e.OnceOwner, e.OnceKey)
		if err := g.batch.Set(k, archived[:], nil); err != nil {
			return err
		}
	}
	if x := r.Event.GetExpired(); x != nil {
		if err := g.expire(x, e.imported); err != nil {
			return err
		}
	}
	if err := g.rewrite(e); err != nil {
		return err
	}
	g.records = append(g.records, *r)
	g.bytes += recordKeyLen + value.size
	return nil
}

func (l *Log) poke() {
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// commit, sync, deliver and apply are the four stages of the writer. While one group
// syncs, the next gathers, and those before are applied. It is committed when the other
// is acknowledged, and its senders have had their turn to append again.
func (l *Log) commit() {
	defer close(l.committed)
	before := 0
	for range l.wake {
		l.syncing <- struct{}{}
		if before >= gatherFrom {
			l.gather()
		}
		l.mu.Lock()
		g, closed := l.open, l.closed
		if before = len(g.waiters); before > 0 {
			l.flying = append(l.flying, g)
			l.open = l.newGroup()
			l.open.expect(g)
			l.room.Broadcast()
		} else {
			g = nil
		}
		failed := l.err
		l.mu.Unlock()
		if g != nil {
			if g.err = failed; g.err == nil && !g.batch.Empty() {
				g.err = l.write(g)
			}
			l.committed <- g
		} else {
			<-l.syncing
		}
		if closed {
			return
		}
	}
}

// gather lets those append who were acknowledged with the group before and are about
// to do so again: a sync costs about the same for all of them as for half of them. It
// waits for nobody who is not ready to run.
func (l *Log) gather() {
	for n, quiet := 0, 0; quiet < 3; runtime.Gosched() {
		l.mu.Lock()
		now := len(l.open.waiters)
		l.mu.Unlock()
		if quiet++; now > n {
			n, quiet = now, 0
		}
	}
}

// gatherFrom is how large a group is after which others are waited for.
const gatherFrom = 8

func (l *Log) write(g *group) error {
	if n := len(g.records); n > 0 {
		if err := g.batch.Set(keyLast, g.records[n-1].ID[:], nil); err != nil {
			return err
		}
	}
	if t := l.timeToKeep(); t != nil {
		if err := g.batch.Set(keyTime, t, nil); err != nil {
			return err
		}
	}
	return l.db.ApplyNoSyncWait(g.batch, pebble.Sync)
}

func (l *Log) sync() {
	defer close(l.synced)
	for g := range l.committed {
		if g.err == nil && !g.batch.Empty() {
			g.err = g.batch.SyncWait() // the commit point: from here on it is durable
		}
		l.synced <- g
	}
}

func (l *Log) deliver() {
	for {
		var g *group
		select {
		case <-l.suspended:
			l.release()
			continue
		case g = <-l.synced:
		}
		if g == nil {
			close(l.applying)
			return
		}
		if g.other {
			<-l.syncing
		}
		if g.err == nil {
			// A follower that has missed a group must not be given the next.
			l.mu.Lock()
			g.err = l.err
			l.mu.Unlock()
		}
		if g.durable = g.err == nil && len(g.records) > 0; g.durable {
			last := g.records[len(g.records)-1].ID
			l.durable.Store(&last)
			l.stats.commits.Add(1)
			l.stats.records.Add(uint64(len(g.records)))
			l.stats.bytes.Add(uint64(g.bytes))
		}
		l.hand(g)
		l.finish(g)
		if !g.other {
			<-l.syncing
		}
	}
}

// maxBehindBytes is by how much followers may be behind what is durable, about,
// before acknowledgements wait for them.
const maxBehindBytes = 4 << 20

// hand gives g to apply, and waits for that where g must not be acknowledged before.
func (l *Log) hand(g *group) {
	next, applied := l.applying, g.applied
	if g.err != nil || !g.other {
		applied = nil
	}
	for next != nil || applied != nil {
		to := next
		if l.behind.Load() > maxBehindBytes {
			to = nil // until apply has eased
		}
		done := applied
		if next != nil {
			done = nil
		}
		select {
		case <-l.suspended:
			l.release()
		case <-l.eased:
		case to <- g:
			l.behind.Add(int64(g.bytes))
			next = nil
		case <-done:
			g.err, applied = g.applyError, nil
		}
	}
}

// apply is the last stage.
func (l *Log) apply() {
	defer close(l.stopped)
	var failed error
	for g := range l.applying {
		if g.durable {
			if failed == nil {
				if failed = l.tell(g.records); failed != nil {
					l.mu.Lock()
					l.failLocked(failed)
					l.mu.Unlock()
				}
			}
			g.applyError = failed
			l.reached(g.records[len(g.records)-1].ID, failed)
		}
		close(g.applied)
		l.behind.Add(-int64(g.bytes))
		select {
		case l.eased <- struct{}{}:
		default:
		}
	}
}

// reached lets those go on who wait for the record, which was applied but for err.
func (l *Log) reached(id ulid.ULID, err error) {
	l.awaiting.Lock()
	defer l.awaiting.Unlock()
	if l.awaiting.err = err; err == nil {
		l.applied.Store(&id)
	}
	if l.awaiting.more != nil {
		close(l.awaiting.more)
		l.awaiting.more = nil
	}
}

// ErrBehind is wrapped by the error of Await when followers don't get to the end.
var ErrBehind = errors.New("what is archived can't be read yet; try again later")

// maxAwait bounds how long a reader waits for followers whose disk hangs.
const maxAwait = 10 * time.Second

// Await returns when the followers have applied all that was acknowledged before the
// call, which under load is a moment later than its acknowledgement. It fails when one
// of them has failed, and after ten seconds.
func (l *Log) Await() error {
	last := l.durable.Load()
	if l.applied.Load().Compare(*last) >= 0 {
		return nil
	}
	timeout := time.NewTimer(maxAwait)
	defer timeout.Stop()
	for {
		l.awaiting.Lock()
		err := l.awaiting.err
		if err != nil || l.applied.Load().Compare(*last) >= 0 {
			l.awaiting.Unlock()
			if err != nil {
				err = fmt.Errorf("%w: %w", ErrBehind, err)
			}
			return err
		}
		if l.awaiting.more == nil {
			l.awaiting.more = make(chan struct{})
		}
		more := l.awaiting.more
		l.awaiting.Unlock()
		select {
		case <-more:
		case <-timeout.C:
			return ErrBehind
		}
	}
}

func (l *Log) tell(records []Record) error {
	for _, f := range l.followers {
		if err := f.Apply(records); err != nil {
			return fmt.Errorf("apply records: %w", err)
		}
	}
	return nil
}

// finish releases those who wait for g, in the order in which they came.
func (l *Log) finish(g *group) {
	l.mu.Lock()
	for _, k := range g.once {
		delete(l.pending, k)
	}
	l.taking -= g.takes
	if g.err == nil {
		g.err = l.err // a group behind a failed one must not be acknowledged
	}
	if g.err != nil {
		l.failLocked(g.err)
		g.err = l.err
	}
	waiters := l.landed(g)
	l.mu.Unlock()
	l.queued.Add(-int64(g.bytes))
	for _, w := range waiters {
		if g.err != nil {
			w.done(nil, g.err)
		} else {
			w.done(w.ids, nil)
		}
	}
	if err := g.batch.Close(); err != nil {
		l.logger.Error("log: release a batch", zapError(err))
	}
}

// failLocked stops the log for good. l.mu is held.
func (l *Log) failLocked(err error) {
	if l.err != nil {
		return
	}
	if !errors.Is(err, ErrFailed) {
		err = fmt.Errorf("%w: %w", ErrFailed, err)
	}
	l.err = err
	l.room.Broadcast()
	l.logger.Error("the log takes no more appends until it is opened anew", zapError(err))
}

var onceSeed = maphash.MakeSeed()

// lockOnce keeps others from appending under the same idempotency keys until
// the returned function is called.
func (l *Log) lockOnce(entries []Entry) (unlock func()) {
	var held uint64 // a bit for each of the 64 locks, so each is taken once and in order
	for _, e := range entries {
		if e.OnceKey != "" {
			held |= 1 << (maphash.String(onceSeed, e.OnceOwner+"\x00"+e.OnceKey) % 64)
		}
	}
	if held == 0 {
		return func() {}
	}
	for i := range l.onceLocks {
		if held&(1<<i) != 0 {
			l.onceLocks[i].Lock()
		}
	}
	return func() {
		for i := range l.onceLocks {
			if held&(1<<i) != 0 {
				l.onceLocks[i].Unlock()
			}
		}
	}
}

// Appended returns the id that an append under these two was answered with, if
// that is remembered. It may not be durable yet.
func (l *Log) Appended(onceOwner, onceKey string) (id ulid.ULID, ok bool, err error) {
	// First what is queued, then what is stored: a key leaves the queue only when
	// the store can be asked for it.
	l.mu.Lock()
	id, ok = l.pending[onceOwner+"\x00"+onceKey]
	l.mu.Unlock()
	if ok {
		return id, true, nil
	}
	return l.storedOnce(onceOwner, onceKey)
}

// findOnce returns, by index, the ids of entries that were appended before.
func (l *Log) findOnce(entries []Entry) (map[int]ulid.ULID, error) {
	var known map[int]ulid.ULID
	for i, e := range entries {
		if e.OnceKey == "" {
			continue
		}
		id, ok, err := l.Appended(e.OnceOwner, e.OnceKey)
		if err != nil {
			return nil, err
		}
		if ok {
			if known == nil {
				known = make(map[int]ulid.ULID)
			}
			known[i] = id
		}
	}
	return known, nil
}

func (l *Log) storedOnce(owner, key string) (id ulid.ULID, ok bool, err error) {
	current := generation(l.clock.Now())
	if err := l.forgetOnce(current); err != nil {
		return id, false, err
	}
	for _, g := range []uint32{current, current - 1} {
		v, err := l.get(onceKey(g, owner, key))
		if errors.Is(err, pebble.ErrNotFound) {
			continue
		}
		if err != nil {
			return id, false, fmt.Errorf("log: look up an idempotency key: %w", err)
		}
		copy(id[:], v)
		return id, true, nil
	}
	return id, false, nil
}

// forgetOnce deletes the generations that are no longer looked at.
func (l *Log) forgetOnce(current uint32) error {
	oldest := l.oldestGen.Load()
	if current-1 <= oldest || !l.oldestGen.CompareAndSwap(oldest, current-1) {
		return nil
	}
	err := l.db.DeleteRange([]byte{kindOnce}, onceKey(current-1, "", "")[:5], pebble.NoSync)
	if err != nil {
		return fmt.Errorf("log: forget idempotency keys: %w", err)
	}
	return nil
}
