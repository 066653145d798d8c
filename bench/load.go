package bench

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
	"golang.org/x/sys/unix"
)

// load drives one server with senders and recipients that are logged in. A message
// counts when its recipient has it: with the body that was sent, in the order in
// which its sender sent it, and where the server has an archive, with the
// stanza-id of the recipient's (XEP-0359).
type load struct {
	system     *system
	senders    []*sender
	recipients []*recipient
	bodies     []string

	delivered atomic.Int64
	windowed  atomic.Bool   // a delivery gives its sender its place in the window back
	failed    chan struct{} // closed at the first error
	failure   sync.Once
	err       error
	readers   sync.WaitGroup
}

// sender sends to the recipients that are its own.
type sender struct {
	*conn
	n     int
	to    []*recipient
	picks *rand.Rand
	share []float64 // cumulated, of the recipients

	seq      uint64        // of the next message
	free     chan struct{} // places in the window
	intended []atomic.Int64
	batch    strings.Builder
}

// recipient gets messages of one sender.
type recipient struct {
	*conn
	user string
	bare string
	from *sender
	next uint64 // least sequence number that may come
	got  int    // messages since the login

	latency *hdrhistogram.Histogram // of the current latency run; microseconds
	mu      sync.Mutex              // over latency
}

// loadOptions for newLoad.
type loadOptions struct {
	pairs  int // senders
	spread int // recipients a sender has; its messages go to them as a person's to contacts
	name   string
	seed   uint64
}

// bodiesInUse is how many different bodies a run has.
const bodiesInUse = 4096

// newLoad makes accounts and logs them in.
func newLoad(ctx context.Context, t *text, s *system, o loadOptions) (_ *load, err error) {
	l := &load{system: s, failed: make(chan struct{})}
	rng := rand.New(rand.NewPCG(o.seed, 3))
	for range bodiesInUse {
		l.bodies = append(l.bodies, t.body(rng))
	}
	var users []string
	for i := range o.pairs {
		users = append(users, fmt.Sprintf("%ss%d", o.name, i))
		for j := range o.spread {
			users = append(users, fmt.Sprintf("%sr%d-%d", o.name, i, j))
		}
	}
	if err := s.register(ctx, users...); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			l.close()
		}
	}()
	share := zipf(o.spread, contactZipf)
	for i := range o.pairs {
		c, err := dial(ctx, s.server, fmt.Sprintf("%ss%d", o.name, i), "desk")
		if err != nil {
			return nil, err
		}
		sn := &sender{
			conn: c, n: i, picks: rand.New(rand.NewPCG(o.seed, uint64(i))), share: share,
			free: make(chan struct{}, maxWindow), intended: make([]atomic.Int64, 1<<16),
		}
		l.senders = append(l.senders, sn)
		for j := range o.spread {
			user := fmt.Sprintf("%sr%d-%d", o.name, i, j)
			c, err := dial(ctx, s.server, user, "phone")
			if err != nil {
				return nil, err
			}
			r := &recipient{conn: c, user: user, bare: user + "@" + host, from: sn}
			sn.to = append(sn.to, r)
			l.recipients = append(l.recipients, r)
			if err := c.available(); err != nil {
				return nil, err
			}
		}
	}
	for _, r := range l.recipients {
		l.readers.Go(func() { l.receive(r) })
	}
	for _, sn := range l.senders {
		l.readers.Go(func() { l.listen(sn) })
	}
	return l, nil
}

func (l *load) fail(err error) {
	l.failure.Do(func() {
		l.err = fmt.Errorf("%s: %w", l.system.Name, err)
		close(l.failed)
	})
}

// listen reads what a sender gets, which should be nothing.
func (l *load) listen(s *sender) {
	for {
		e, err := s.in.next()
		if err == nil && string(attr(e, "type")) == "error" {
			err = fmt.Errorf("a sender got %s", e)
		}
		if err != nil {
			l.fail(err)
			return
		}
	}
}

func (l *load) receive(r *recipient) {
	for {
		e, err := r.in.next()
		if err == nil && is(e, "message") {
			err = l.take(r, e)
		} else if err == nil && is(e, "stream:error") {
			err = fmt.Errorf("a recipient got %s", e)
		}
		if err != nil {
			l.fail(err)
			return
		}
	}
}

// take checks a message and counts it.
func (l *load) take(r *recipient, e []byte) error {
	seq, ok := sequenceNumber(attr(e, "id"))
	if !ok {
		return fmt.Errorf("a recipient got %.200s", e)
	}
	if seq < r.next || seq > r.next && len(r.from.to) == 1 {
		return fmt.Errorf("message %d came where message %d was due", seq, r.next)
	}
	r.next = seq + 1
	if got := between(e, "<body>", "</body>"); string(got) != l.body(r.from, seq) {
		return fmt.Errorf("message %d came with another body", seq)
	}
	if l.system.archives() && !stamped(e, r.bare) {
		return fmt.Errorf("message %d came without an id of the archive of %s: %s", seq, r.bare, e)
	}
	r.got++
	if at := r.from.intended[seq%uint64(len(r.from.intended))].Swap(0); at != 0 {
		late := (monotonic() - at) / 1000
		r.mu.Lock()
		err := r.latency.RecordValue(min(max(late, 1), r.latency.HighestTrackableValue()))
		r.mu.Unlock()
		if err != nil {
			return err
		}
	}
	l.delivered.Add(1)
	if l.windowed.Load() {
		r.from.free <- struct{}{}
	}
	return nil
}

// body is what a sender's message says.
func (l *load) body(s *sender, seq uint64) string {
	return l.bodies[(uint64(s.n)*131+seq)%uint64(len(l.bodies))]
}

// sequenceNumber reads what stanzaID has made.
func sequenceNumber(id []byte) (uint64, bool) {
	digits, ok := bytes.CutPrefix(id, []byte(idPrefix))
	if !ok {
		return 0, false
	}
	n, err := strconv.ParseUint(string(digits), 16, 64)
	return n, err == nil
}

// between is what stands between two strings; nil if they aren't there.
func between(e []byte, from, to string) []byte {
	i := bytes.Index(e, []byte(from))
	if i < 0 {
		return nil
	}
	e = e[i+len(from):]
	if i = bytes.Index(e, []byte(to)); i < 0 {
		return nil
	}
	return e[:i]
}

// stamped tells whether a message has the stanza-id of an archive.
func stamped(e []byte, by string) bool {
	for {
		i := bytes.Index(e, []byte("<stanza-id"))
		if i < 0 {
			return false
		}
		e = e[i:]
		if string(attr(e, "by")) == by && len(attr(e, "id")) > 0 {
			return true
		}
		e = e[1:]
	}
}

// add puts the next message into the sender's batch.
func (l *load) add(s *sender) {
	r := s.to[0]
	if len(s.to) > 1 {
		r = s.to[rankAt(s.share, s.picks.Float64())]
	}
	id := stanzaID(s.seq)
	s.batch.WriteString("<message to='")
	s.batch.WriteString(r.bare)
	s.batch.WriteString("' type='chat' id='")
	s.batch.WriteString(id)
	s.batch.WriteString("'>")
	payload(&s.batch, id, l.body(s, s.seq))
	s.batch.WriteString("</message>")
	s.seq++
}

// flush sends the batch.
func (l *load) flush(s *sender) bool {
	_, err := s.Write([]byte(s.batch.String()))
	s.batch.Reset()
	if err != nil {
		l.fail(err)
	}
	return err == nil
}

// maxWindow is the greatest for throughput.
const maxWindow = 1024

// throughput keeps so many messages of each of the first senders under way, and
// returns how many a second were delivered, not counting the warm-up. On return
// none is under way.
func (l *load) throughput(ctx context.Context, senders, window int, warmUp, d time.Duration) (float64, error) {
	stop := make(chan struct{})
	var running sync.WaitGroup
	l.windowed.Store(true)
	defer l.windowed.Store(false)
	for _, s := range l.senders[:senders] {
		for range window {
			s.free <- struct{}{}
		}
		running.Go(func() { l.keepSending(s, stop) })
	}
	_, err := l.watch(ctx, warmUp, senders)
	var rate float64
	if err == nil {
		rate, err = l.watch(ctx, d, senders)
	}
	close(stop)
	running.Wait()
	if err == nil {
		err = l.drain(ctx, l.senders[:senders], window)
	}
	return rate, err
}

// watch counts deliveries for so long, or until there were so many at least.
func (l *load) watch(ctx context.Context, d time.Duration, least int) (rate float64, err error) {
	before, started := l.delivered.Load(), time.Now()
	err = l.sleep(ctx, d)
	for err == nil && l.delivered.Load()-before < int64(least) {
		err = l.sleep(ctx, 5*time.Millisecond) // until the next look
	}
	return float64(l.delivered.Load()-before) / time.Since(started).Seconds(), err
}

func (l *load) keepSending(s *sender, stop chan struct{}) {
	for {
		select {
		case <-stop:
			return
		case <-l.failed:
			return
		case <-s.free:
		}
		l.add(s)
		for more := true; more; {
			select {
			case <-s.free:
				l.add(s)
			default:
				more = false
			}
		}
		if !l.flush(s) {
			return
		}
	}
}

// drain waits until all that was sent has come.
func (l *load) drain(ctx context.Context, senders []*sender, window int) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for _, s := range senders {
		for range window {
			select {
			case <-s.free:
			case <-l.failed:
				return l.err
			case <-ctx.Done():
				return fmt.Errorf("%s: messages were lost: %w", l.system.Name, ctx.Err())
			}
		}
	}
	return nil
}

func (l *load) sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-l.failed:
		return l.err
	case <-time.After(d):
		return nil
	}
}

// monotonic is the time in nanoseconds, of a clock that is never set.
func monotonic() int64 {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &t); err != nil {
		panic("bench: no monotonic clock: " + err.Error())
	}
	return t.Nano()
}

// newHistogram holds microseconds up to a minute, with three digits.
func newHistogram() *hdrhistogram.Histogram { return hdrhistogram.New(1, 60_000_000, 3) }

// openLoop lets the first senders send rate messages a second, at moments that don't depend on how
// the server keeps up, and returns how long after the moment at which it was to
// be sent each was delivered. Moments have exponential distances: nobody waits
// for anybody.
func (l *load) openLoop(ctx context.Context, senders int, rate float64, d time.Duration, seed uint64) (*hdrhistogram.Histogram, error) {
	for _, r := range l.recipients {
		r.mu.Lock()
		r.latency = newHistogram()
		r.mu.Unlock()
	}
	before := l.delivered.Load()
	done := make(chan int64)
	go func() { done <- l.schedule(ctx, l.senders[:senders], rate, d, seed) }()
	sent := <-done
	deadline := time.Now().Add(patience)
	for l.delivered.Load()-before < sent {
		if time.Now().After(deadline) {
			return nil, fmt.Errorf("%s: of %d messages %d were lost", l.system.Name, sent, sent-l.delivered.Load()+before)
		}
		if err := l.sleep(ctx, 5*time.Millisecond); err != nil { // until the next look
			return nil, err
		}
	}
	all := newHistogram()
	for _, r := range l.recipients {
		r.mu.Lock()
		dropped := all.Merge(r.latency)
		r.mu.Unlock()
		if dropped > 0 {
			return nil, errors.New("a latency was beyond the histogram")
		}
	}
	return all, nil
}

// schedule sends on a thread of its own, which sleeps more exactly than the
// runtime's timers do while all else is idle.
func (l *load) schedule(ctx context.Context, senders []*sender, rate float64, d time.Duration, seed uint64) (sent int64) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	rng := rand.New(rand.NewPCG(seed, 4))
	start := monotonic()
	for at := start; at < start+d.Nanoseconds(); at += int64(rng.ExpFloat64() / rate * 1e9) {
		for monotonic() < at {
			t := unix.NsecToTimespec(at)
			_ = unix.ClockNanosleep(unix.CLOCK_MONOTONIC, unix.TIMER_ABSTIME, &t, nil) // a signal wakes it early
		}
		select {
		case <-ctx.Done():
			return sent
		case <-l.failed:
			return sent
		default:
		}
		s := senders[rng.IntN(len(senders))]
		s.intended[s.seq%uint64(len(s.intended))].Store(at)
		l.add(s)
		if !l.flush(s) {
			return sent
		}
		sent++
	}
	return sent
}

// verify asks all archives how many messages they have, which must be as many
// as were sent and delivered. Nothing may be under way.
func (l *load) verify(ctx context.Context) error {
	for _, s := range l.senders {
		if err := l.checkCount(ctx, strings.Split(s.jid, "@")[0], int(s.seq)); err != nil {
			return err
		}
	}
	for _, r := range l.recipients {
		if err := l.checkCount(ctx, r.user, r.got); err != nil {
			return err
		}
	}
	return nil
}

func (l *load) checkCount(ctx context.Context, user string, want int) error {
	if want == 0 {
		return nil
	}
	c, err := dial(ctx, l.system.server, user, "auditor")
	if err != nil {
		return err
	}
	defer c.Close()
	fin, err := c.ask("set", "", "<query xmlns='urn:xmpp:mam:2'><set xmlns='http://jabber.org/protocol/rsm'><max>1</max><before/></set></query>", nil)
	if err != nil {
		return err
	}
	if n, err := strconv.Atoi(string(between(fin, "<count>", "</count>"))); err != nil || n != want {
		return fmt.Errorf("%s: the archive of %s counts %d messages, %d went through: %s", l.system.Name, user, n, want, fin)
	}
	return nil
}

// close ends all sessions.
func (l *load) close() {
	l.fail(errors.New("closed"))
	for _, s := range l.senders {
		_ = s.Close()
	}
	for _, r := range l.recipients {
		_ = r.Close()
	}
	l.readers.Wait()
}
