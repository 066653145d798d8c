package c2s

import "sync"

// highWater is how much may wait for a client before its own queries wait too; at
// most half of the limit, so that there is room for an answer.
const highWater = 1 << 20

// outbox is what waits to be written to one client, each entry one element. Any
// goroutine puts, none blocks in that; one writer takes.
type outbox struct {
	limit   int    // bytes
	high    int    // bytes; see highWater
	tooFull func() // called once, by a goroutine of its own, when limit is passed

	mu     sync.Mutex
	more   sync.Cond // there is something to take
	less   sync.Cond // bytes went down, or the outbox was closed
	queue  [][]byte
	lent   []*answer // whose elements are in queue
	taken  []*answer // whose elements were taken and are not yet written
	bytes  int       // in queue, or taken and not yet written
	full   bool      // limit was passed: nothing more is taken in
	closed bool
}

func newOutbox(limit int, tooFull func()) *outbox {
	o := &outbox{limit: limit, high: min(highWater, limit/2), tooFull: tooFull}
	o.more.L, o.less.L = &o.mu, &o.mu
	return o
}

// put queues b, which nobody may change any more. After close it does nothing.
func (o *outbox) put(b []byte) {
	o.mu.Lock()
	o.add(len(b), b)
	o.mu.Unlock()
}

// putAnswer queues all elements of a at once, so that they go out in one piece, and
// recycles it when they have.
func (o *outbox) putAnswer(a *answer) {
	o.mu.Lock()
	if o.add(len(a.bytes), a.elements()...) {
		o.lent = append(o.lent, a)
	}
	o.mu.Unlock()
}

// add is put for some elements of so many bytes, and tells whether they were taken
// in. mu is held.
func (o *outbox) add(bytes int, elements ...[]byte) bool {
	if o.closed || o.full {
		return false
	}
	if o.bytes+bytes > o.limit {
		// Whoever puts may hold locks that ending the session needs, the log's
		// own goroutine above all.
		o.full = true
		go o.tooFull()
		return false
	}
	if len(o.queue) == 0 {
		o.more.Signal()
	}
	o.bytes += bytes
	o.queue = append(o.queue, elements...)
	return true
}

// close ends the queue with words. drop throws away what waits before them.
func (o *outbox) close(words [][]byte, drop bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.closed {
		return
	}
	o.closed = true
	if drop {
		o.queue = nil
	}
	o.queue = append(o.queue, words...)
	o.more.Signal()
	o.less.Broadcast()
}

// take waits for something to write. last means that nothing comes after batch.
// reuse is an earlier batch whose memory is free again.
func (o *outbox) take(reuse [][]byte) (batch [][]byte, last bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for len(o.queue) == 0 && !o.closed {
		o.more.Wait()
	}
	batch = o.queue
	o.taken, o.lent = o.lent, o.taken[:0]
	clear(reuse)
	if cap(reuse) > 1<<12 {
		reuse = nil // one burst should not be kept for ever
	}
	o.queue = reuse[:0]
	return batch, o.closed
}

// wrote takes a batch that was written off the account.
func (o *outbox) wrote(batch [][]byte) {
	n := 0
	for _, b := range batch {
		n += len(b)
	}
	o.mu.Lock()
	o.bytes -= n
	o.less.Broadcast()
	o.mu.Unlock()
	for i, a := range o.taken { // the writer's alone until the next take
		a.recycle()
		o.taken[i] = nil
	}
}

// room waits until less than high is queued; false if the outbox is closed.
func (o *outbox) room() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	for o.bytes >= o.high && !o.closed {
		o.less.Wait()
	}
	return !o.closed
}
