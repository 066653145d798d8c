package c2s

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"
	"mellium.im/xmpp/jid"

	"mamlog/xep0313/stanza"
)

// link is a negotiated connection: TCP (tcp.go) or WebSocket (websocket.go).
type link interface {
	next() (*stanza.Element, error) // io.EOF where the client ended the stream
	write(batch [][]byte) error     // one element each
	interrupt()                     // makes next return soon; from any goroutine
	finish()                        // the writer's, when the last words are out
	hangUp()                        // the reader's, after that: lets the client close too
}

// session is one client with a bound resource.
type session struct {
	s        *Server
	conn     net.Conn // as accepted, to close it by
	jid      jid.JID
	full     string
	bare     string
	resource string

	out     *outbox
	flights *flights
	jobs    chan func() // for the worker; it holds whatever may be in flight, so sending never blocks
	ctx     context.Context
	cancel  context.CancelFunc
	left    chan struct{} // closed when it is out of the registry

	addresses map[string]*address // the reader's
	asking    atomic.Int64        // requests to an archive that are not answered

	// Guarded by registry.mu.
	presence   *stanza.Element     // the last broadcast one, stamped; nil: unavailable
	priority   int                 // of that
	carbons    bool                // XEP-0280
	interested bool                // asked for its roster, so gets pushes
	directed   map[string]*address // who got directed presence (RFC 6121 section 4.6)

	mu    sync.Mutex
	link  link // nil until run
	ended bool
}

func newSession(s *Server, full jid.JID, conn net.Conn) *session {
	x := &session{
		s: s, conn: conn, jid: full,
		full: full.String(), bare: full.Bare().String(), resource: full.Resourcepart(),
		flights: newFlights(s.limits.InFlight),
		// One more than may be in flight: the reader may have let one pass while
		// the session was ending.
		jobs:      make(chan func(), s.limits.InFlight+1),
		left:      make(chan struct{}),
		addresses: make(map[string]*address),
	}
	x.out = newOutbox(s.limits.QueueBytes, func() {
		x.fail(&stanza.StreamError{Condition: "resource-constraint", Text: "too much was waiting to be read by you"})
	})
	x.ctx, x.cancel = context.WithCancel(context.Background())
	return x
}

// run serves the client until its stream ends. It returns when the connection is
// closed.
func (x *session) run(l link) {
	x.mu.Lock()
	x.link = l
	if x.ended {
		l.interrupt()
	}
	x.mu.Unlock()
	x.s.logger.Info("c2s: session opened", zap.String("jid", x.full), zap.Stringer("peer", x.conn.RemoteAddr()))

	written := make(chan struct{})
	go func() {
		defer close(written)
		x.writer(l)
	}()
	worked := make(chan struct{})
	go func() {
		defer close(worked)
		x.worker()
	}()

	x.reader(l)
	x.gone()
	select {
	case <-written:
		l.hangUp()
	case <-time.After(x.s.limits.CloseTimeout):
	}
	x.conn.Close()
	<-written
	<-worked
	x.s.queries.Leave(x.bare, int(x.asking.Load())) // nobody answers them any more
}

func (x *session) reader(l link) {
	for {
		e, err := l.next()
		if err != nil {
			if err == io.EOF {
				x.flights.drain() // it may still read (RFC 6120 section 4.4)
			}
			x.fail(readError(err))
			return
		}
		if x.ctx.Err() != nil {
			return
		}
		if se := x.handle(e); se != nil {
			x.fail(se)
			return
		}
	}
}

// readError is the stream error that the client is told; nil: it left, or was
// told already.
func readError(err error) *stanza.StreamError {
	var se *stanza.StreamError
	if errors.As(err, &se) {
		return se
	}
	return nil
}

func (x *session) writer(l link) {
	var batch [][]byte
	for last := false; !last; {
		batch, last = x.out.take(batch)
		if err := l.write(batch); err != nil {
			if !errors.Is(err, net.ErrClosed) && !errors.Is(err, io.EOF) {
				x.s.logger.Debug("c2s: write", zap.String("jid", x.full), zap.Error(err))
			}
			x.out.close(nil, true)
			x.fail(nil)
			return
		}
		for _, b := range batch {
			x.s.metrics.sent.count(b)
		}
		x.out.wrote(batch)
	}
	l.finish()
}

// worker does what may take long or must wait.
func (x *session) worker() {
	for {
		select {
		case <-x.ctx.Done():
			return
		case job := <-x.jobs:
			job()
			x.flights.done()
		}
	}
}

// later gives the worker something to do behind what is in flight.
func (x *session) later(job func()) {
	x.flights.behind(func() bool {
		x.jobs <- job
		return true
	})
}

// fail ends the stream, with an error unless se is nil. It does not block, and
// only the first call counts.
func (x *session) fail(se *stanza.StreamError) {
	x.mu.Lock()
	if x.ended {
		x.mu.Unlock()
		return
	}
	x.ended = true
	l := x.link
	x.mu.Unlock()
	fields := []zap.Field{zap.String("jid", x.full)}
	if se != nil {
		fields = append(fields, zap.String("condition", se.Condition), zap.String("reason", se.Text))
		x.s.metrics.streamErrors.WithLabelValues(streamCondition(se.Condition)).Inc()
	}
	x.s.logger.Info("c2s: session ends", fields...)
	_, framed := x.conn.(*frames)
	x.out.close(lastWords(se, framed), se != nil && se.Condition == "resource-constraint")
	x.cancel()
	x.flights.end()
	if l != nil {
		l.interrupt()
	}
}

// handle is the reader's: what to do with one stanza.
func (x *session) handle(e *stanza.Element) *stanza.StreamError {
	if e.Space != stanza.NSClient {
		return &stanza.StreamError{Condition: "unsupported-stanza-type", Text: "only stanzas of jabber:client are known"}
	}
	if from, ok := e.LookupAttr("from"); ok && from != x.full && from != x.bare {
		if a := x.address(from); a == nil || a.bare != x.bare || a.resource != "" && a.resource != x.resource {
			return &stanza.StreamError{Condition: "invalid-from", Text: "that is not your address"}
		}
	}
	e.SetAttr("from", x.full)
	switch e.Local {
	case "message":
		x.s.metrics.received.message.Inc()
		x.message(e)
	case "presence":
		x.s.metrics.received.presence.Inc()
		x.handlePresence(e)
	case "iq":
		x.s.metrics.received.iq.Inc()
		x.iq(e)
	default:
		return &stanza.StreamError{Condition: "unsupported-stanza-type", Text: "a stanza is a message, a presence or an iq"}
	}
	return nil
}

// answer puts a stanza of our own into the client's queue.
func (x *session) answer(e *stanza.Element) { x.out.put(e.Bytes()) }

// deadlineReached tells a wait that was interrupted from a broken connection.
func deadlineReached(err error) bool { return errors.Is(err, os.ErrDeadlineExceeded) }
