package c2s

import (
	"sync"

	"mamlog/xep0313"
)

// flights keeps the order of what one session sent. A message is in flight from
// when the reader took it until it was recorded and delivered; what must not
// overtake it queues behind it. A log's goroutine, which brings the messages of
// its store in the order of commits, lands each at once: in that order its
// recipients' archives have them, and messages that go into another store don't
// hold it up. It also lands what queued behind them.
//
// Only the reader queues what must keep its place. So while the queue is empty,
// it may do things itself at once; when it isn't, its head is still in flight.
type flights struct {
	limit int

	mu    sync.Mutex
	cond  sync.Cond
	queue []*flight // queue[0] has not landed
	busy  int       // stanzas in the queue or with the worker
	ended bool
}

// flight is one entry: a message on its way, or something to do behind one.
type flight struct {
	of     *flights
	waits  bool // it only waits for those before it
	landed bool

	// land must not block. It returns true if the entry still counts until done
	// is called.
	land func(xep0313.Delivery) (keeps bool)
}

func newFlights(limit int) *flights {
	f := &flights{limit: limit}
	f.cond.L = &f.mu
	return f
}

// add takes a message in. Arrive has to be called for it. wait is for the reader,
// and waits while too much is in flight; the worker must not, since what is in
// flight may be waiting for the worker.
func (f *flights) add(wait bool, land func(xep0313.Delivery) bool) *flight {
	x := &flight{of: f, land: land}
	f.mu.Lock()
	defer f.mu.Unlock()
	if wait {
		f.waitRoom()
	}
	f.busy++
	f.queue = append(f.queue, x)
	return x
}

// behind does do when everything before it has landed: at once, or later on the
// log's goroutine. Like land, do must not block, and tells whether it keeps.
func (f *flights) behind(do func() (keeps bool)) {
	f.mu.Lock()
	f.waitRoom()
	f.busy++
	if len(f.queue) > 0 {
		f.queue = append(f.queue, &flight{of: f, waits: true, land: func(xep0313.Delivery) bool { return do() }})
		f.mu.Unlock()
		return
	}
	f.mu.Unlock()
	if !do() {
		f.done()
	}
}

// waitRoom waits while too much is in flight. mu is held.
func (f *flights) waitRoom() {
	for f.busy >= f.limit && !f.ended {
		f.cond.Wait()
	}
}

// arrive lands x, and whatever was only waiting for it.
func (x *flight) arrive(d xep0313.Delivery) {
	f := x.of
	f.mu.Lock()
	defer f.mu.Unlock()
	x.down(d)
	n := 0
	for ; n < len(f.queue) && (f.queue[n].landed || f.queue[n].waits); n++ {
		if f.queue[n].waits {
			f.queue[n].down(xep0313.Delivery{})
		}
		f.queue[n] = nil
	}
	if f.queue = f.queue[n:]; len(f.queue) == 0 {
		f.queue = nil
	}
	f.cond.Broadcast()
}

// down lands x. mu is held.
func (x *flight) down(d xep0313.Delivery) {
	x.landed = true
	if !x.land(d) {
		x.of.busy--
	}
}

// done is called for what kept.
func (f *flights) done() {
	f.mu.Lock()
	f.busy--
	f.cond.Broadcast()
	f.mu.Unlock()
}

// settle waits until nothing is in flight.
func (f *flights) settle() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for len(f.queue) > 0 && !f.ended {
		f.cond.Wait()
	}
}

// drain waits until everything is done, also what the worker does.
func (f *flights) drain() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for f.busy > 0 && !f.ended {
		f.cond.Wait()
	}
}

// end lets the reader go, wherever it waits.
func (f *flights) end() {
	f.mu.Lock()
	f.ended = true
	f.cond.Broadcast()
	f.mu.Unlock()
}
