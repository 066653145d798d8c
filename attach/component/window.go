package component

import (
	"sync"
	"time"
)

// window counts the appends of one stream that are unanswered, and holds the
// reader back while they are too many.
type window struct {
	max int

	mu     sync.Mutex
	change sync.Cond
	n      int
	closed bool // nothing more is let in
}

func newWindow(max int) *window {
	w := &window{max: max}
	w.change.L = &w.mu
	return w
}

// enter waits for room for n appends, of which there are at most max. It returns
// false if the window was closed.
func (w *window) enter(n int) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	for w.n+n > w.max && !w.closed {
		w.change.Wait()
	}
	if w.closed {
		return false
	}
	w.n += n
	return true
}

// leave is called when n appends are answered.
func (w *window) leave(n int) {
	w.mu.Lock()
	w.n -= n
	w.change.Broadcast()
	w.mu.Unlock()
}

// close lets nothing more in, and whoever waits for that go.
func (w *window) close() {
	w.mu.Lock()
	w.closed = true
	w.change.Broadcast()
	w.mu.Unlock()
}

// drain waits until all is answered, or until patience is over.
func (w *window) drain(patience time.Duration) {
	over := false
	t := time.AfterFunc(patience, func() {
		w.mu.Lock()
		over = true
		w.change.Broadcast()
		w.mu.Unlock()
	})
	defer t.Stop()
	w.mu.Lock()
	defer w.mu.Unlock()
	for w.n > 0 && !over {
		w.change.Wait()
	}
}

func (w *window) inFlight() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.n
}
