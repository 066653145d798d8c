package disk

import (
	"runtime"
	"slices"
	"sync"
	"time"
)

// A Turn is taken by work that nobody waits for, before every piece of it: what
// the engine writes in the background, and what reads a log from end to end. Of all
// such work of the process no more is done at a time than leaves one processor to
// those who wait. Tables and blobs written through an FS take turns by themselves.
//
// To have a turn is no lock: who does not come back for more within lease loses it,
// so that work may wait for other work. One goroutine at a time uses a Turn.
type Turn struct {
	urgent bool      // takes a turn without waiting, and gives none away
	since  time.Time // the piece of work under way began, for TakeGently

	// Under turnstile.mu.
	began time.Time // the turn
	seen  time.Time // when it came for more
}

const (
	turn  = time.Millisecond      // after which another one's comes
	lease = 10 * time.Millisecond // after which who has a turn and does not come back is not waited for

	// gently is the part of the processors that gentle work takes, as its inverse.
	gently = 8
)

var processors = runtime.GOMAXPROCS(0)

var turns = turnstile{most: max(1, processors-1)}

// Take returns when a piece of work may be done, which should take a millisecond
// at most.
func (t *Turn) Take() { turns.take(t) }

// TakeGently is Take for work that has all the time in the world: it rests so long
// that it takes an eighth of the processors.
func (t *Turn) TakeGently() {
	if rest := min(time.Since(t.since), lease) * time.Duration(max(0, gently/processors-1)); !t.since.IsZero() && rest > 0 {
		turns.end(t)
		time.Sleep(rest)
	}
	turns.take(t)
	t.since = time.Now()
}

// End gives the turn back, if there is one.
func (t *Turn) End() { turns.end(t) }

// turnstile lets so many through at a time, in the order in which they came.
type turnstile struct {
	mu     sync.Mutex
	most   int
	inside []*Turn
	queue  []waiter
}

type waiter struct {
	turn *Turn
	in   chan struct{}
}

func (s *turnstile) take(t *Turn) {
	w, wait := s.ask(t)
	if !wait {
		return
	}
	late := time.NewTicker(lease)
	defer late.Stop()
	for {
		select {
		case <-w.in:
			return
		case now := <-late.C:
			s.expel(now)
		}
	}
}

// ask lets t in at once or puts it into the queue.
func (s *turnstile) ask(t *Turn) (w waiter, wait bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	if slices.Contains(s.inside, t) {
		if t.urgent || len(s.inside) <= s.most && (len(s.queue) == 0 || now.Sub(t.began) < turn) {
			t.seen = now
			return w, false
		}
		s.leave(t)
	}
	if t.urgent || len(s.queue) == 0 && len(s.inside) < s.most {
		s.enter(t, now)
		return w, false
	}
	w = waiter{t, make(chan struct{})}
	s.queue = append(s.queue, w)
	return w, true
}

// expel takes the turns of those who did not come back.
func (s *turnstile) expel(now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.inside = slices.DeleteFunc(s.inside, func(t *Turn) bool { return now.Sub(t.seen) > lease })
	s.admit()
}

func (s *turnstile) end(t *Turn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.leave(t)
}

func (s *turnstile) enter(t *Turn, now time.Time) {
	t.began, t.seen = now, now
	s.inside = append(s.inside, t)
}

func (s *turnstile) leave(t *Turn) {
	if i := slices.Index(s.inside, t); i >= 0 {
		s.inside = slices.Delete(s.inside, i, i+1)
		s.admit()
	}
}

func (s *turnstile) admit() {
	for len(s.queue) > 0 && len(s.inside) < s.most {
		w := s.queue[0]
		s.queue = slices.Delete(s.queue, 0, 1)
		s.enter(w.turn, time.Now())
		close(w.in)
	}
}
