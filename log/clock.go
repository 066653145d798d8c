package log

import (
	"bufio"
	"crypto/rand"
	"encoding/binary"
	"io"
	"sync"
	"time"

	"github.com/oklog/ulid/v2"
)

// Clock mints ids: ULIDs that grow strictly, whatever the wall clock does. Logs
// that share a Clock draw from one order of ids.
//
// Within a millisecond an id differs from the one before it by a random step of
// up to 2^56, so that nobody who knows their own ids can guess a neighbour's
// (XEP-0313 section 3 wants them unpredictable). A clock that was set back
// makes ids stay in the last millisecond until the time has come around again.
type Clock struct {
	mu      sync.Mutex
	now     func() time.Time
	elapsed func() time.Duration // since some moment; nobody can set it
	entropy io.Reader
	drawn   [10]byte // from entropy: what is read into must not be on a stack
	last    ulid.ULID
}

// NewClock returns a Clock that reads the time from now; nil means time.Now.
func NewClock(now func() time.Time) *Clock {
	elapsed := func() time.Duration { return now().Sub(time.Unix(0, 0)) }
	if now == nil {
		now = time.Now
		began := time.Now()
		elapsed = func() time.Duration { return time.Since(began) }
	}
	return &Clock{now: now, elapsed: elapsed, entropy: bufio.NewReaderSize(rand.Reader, 4096)}
}

// Now returns the time that the next id would carry, in whole milliseconds.
func (c *Clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return time.UnixMilli(int64(max(ulid.Timestamp(c.now()), c.last.Time()))).UTC()
}

// read returns what the wall clock shows, in UTC and whole milliseconds, and the
// time that has passed since some moment.
func (c *Clock) read() (wall time.Time, elapsed time.Duration) {
	return time.UnixMilli(c.now().UnixMilli()).UTC(), c.elapsed()
}

// Observe makes every later id greater than id. A log calls it with the last id
// that it holds.
func (c *Clock) Observe(id ulid.ULID) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if id.Compare(c.last) > 0 {
		c.last = id
	}
}

// Next returns an id greater than all before it.
func (c *Clock) Next() ulid.ULID {
	c.mu.Lock()
	defer c.mu.Unlock()
	if ms := ulid.Timestamp(c.now()); ms > c.last.Time() {
		c.last = c.first(ms)
		return c.last
	}
	next, ok := c.step(c.last)
	if !ok {
		next = c.first(c.last.Time() + 1)
	}
	c.last = next
	return next
}

// Past returns an id for something that happened at t and was not recorded then:
// greater than after, and otherwise of that time. A t that is not later than
// after's time gives an id a random step behind after. ok is false if that id is
// not in the past of all that Next will return.
func (c *Clock) Past(t time.Time, after ulid.ULID) (id ulid.ULID, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := max(ulid.Timestamp(c.now()), c.last.Time())
	ms := uint64(max(t.UnixMilli(), 0))
	switch {
	case ms >= now:
		return id, false
	case ms > after.Time():
		return c.first(ms), true
	}
	if id, ok = c.step(after); !ok {
		id = c.first(after.Time() + 1)
	}
	return id, id.Time() < now
}

// first returns a random id of the millisecond ms. Its highest random bit is
// zero, which leaves room for some 2^24 steps.
func (c *Clock) first(ms uint64) (id ulid.ULID) {
	copy(id[6:], c.random(10))
	id[6] &= 0x7f
	if err := id.SetTime(ms); err != nil {
		panic("log: the clock is past the year 10889")
	}
	return id
}

// step adds a random number from 1 to 2^56 to the 80 random bits of id.
func (c *Clock) step(id ulid.ULID) (ulid.ULID, bool) {
	low := binary.BigEndian.Uint64(id[8:])
	sum := low + binary.BigEndian.Uint64(c.random(8))>>8 + 1
	binary.BigEndian.PutUint64(id[8:], sum)
	if sum > low {
		return id, true
	}
	high := binary.BigEndian.Uint16(id[6:]) + 1
	binary.BigEndian.PutUint16(id[6:], high)
	return id, high != 0
}

// random returns n random bytes, to be used before it is called again.
func (c *Clock) random(n int) []byte {
	if _, err := io.ReadFull(c.entropy, c.drawn[:n]); err != nil {
		panic("log: no randomness to make ids of: " + err.Error())
	}
	return c.drawn[:n]
}
