package component

import "sync"

// turns keeps the answers to one host's batches and deletions in the order of
// these: an answer that is there early waits for those before it. A server so needs
// no more than a queue of what it has sent.
type turns struct {
	mu    sync.Mutex
	queue []*turn // queue[0] has no answer yet
}

// turn is the place of one request.
type turn struct{ answer []byte }

// take is called for each request in their order.
func (t *turns) take() *turn {
	x := new(turn)
	t.mu.Lock()
	t.queue = append(t.queue, x)
	t.mu.Unlock()
	return x
}

// answer gives x its answer, and out all answers whose turn that makes it.
func (t *turns) answer(x *turn, b []byte, out *outbox) {
	t.mu.Lock()
	defer t.mu.Unlock()
	x.answer = b
	n := 0
	for ; n < len(t.queue) && t.queue[n].answer != nil; n++ {
		out.answer(t.queue[n].answer)
		t.queue[n] = nil
	}
	if t.queue = t.queue[n:]; len(t.queue) == 0 {
		t.queue = nil
	}
}
