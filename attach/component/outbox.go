package component

import "sync"

// How much may wait to be written. Beyond the first no more requests are read,
// beyond the second no more pages are made.
const (
	maxAnswers = 4 << 20
	maxPages   = 4 << 20
)

// outbox is what waits to be written to a server, in two lanes: answers, and
// pages, which give way to them. Any goroutine puts, none blocks in that; one
// writer takes.
type outbox struct {
	mu      sync.Mutex
	more    sync.Cond // there is something to take
	less    sync.Cond // something was taken, or the outbox was closed
	answers []byte
	pages   [][]byte
	bytes   int // in pages
	closed  bool
}

func newOutbox() *outbox {
	o := new(outbox)
	o.more.L, o.less.L = &o.mu, &o.mu
	return o
}

// answer queues a copy of b before all pages that wait. After close it does
// nothing.
func (o *outbox) answer(b []byte) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.closed {
		return
	}
	o.answers = append(o.answers, b...)
	o.more.Signal()
}

// page queues b, which nobody may change any more, behind the other pages. After
// close it does nothing.
func (o *outbox) page(b []byte) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.closed {
		return
	}
	o.pages = append(o.pages, b)
	o.bytes += len(b)
	o.more.Signal()
}

// close ends the queue. words come behind the answers; pages that wait are
// dropped, since at the end nobody should wait for them.
func (o *outbox) close(words string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.closed {
		return
	}
	o.closed = true
	o.answers = append(o.answers, words...)
	o.pages, o.bytes = nil, 0
	o.more.Signal()
	o.less.Broadcast()
}

// take waits for something to write: answers, and one page behind them. last
// means that nothing comes after these. reuse is what was taken earlier and is
// free again.
func (o *outbox) take(reuse []byte) (answers, page []byte, last bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for len(o.answers) == 0 && len(o.pages) == 0 && !o.closed {
		o.more.Wait()
	}
	answers = o.answers
	if cap(reuse) > 256<<10 {
		reuse = nil // one burst should not be kept for ever
	}
	o.answers = reuse[:0]
	if len(o.pages) > 0 {
		page, o.pages[0] = o.pages[0], nil
		if o.pages = o.pages[1:]; len(o.pages) == 0 {
			o.pages = nil
		}
		o.bytes -= len(page)
	}
	o.less.Broadcast()
	return answers, page, o.closed && len(o.pages) == 0
}

// roomForAnswers waits until the server has read enough of them; false if the
// outbox is closed.
func (o *outbox) roomForAnswers() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	for len(o.answers) > maxAnswers && !o.closed {
		o.less.Wait()
	}
	return !o.closed
}

// roomForPages is that for pages.
func (o *outbox) roomForPages() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	for o.bytes > maxPages && !o.closed {
		o.less.Wait()
	}
	return !o.closed
}
