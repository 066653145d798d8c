package component

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"time"

	"mellium.im/xmpp/jid"

	"mamlog/attach/admit"
	"mamlog/attach/wire"
	"mamlog/xep0313/stanza"
)

// maxDepth and maxAttrs bound what is archived: stanza.Parse, which others read
// stored messages with, takes twice as much.
const (
	maxDepth = 512
	maxAttrs = 512
)

// stream is one connection of a link, from the accepted handshake to its end.
type stream struct {
	l        *link
	conn     net.Conn
	frames   *frames
	prefixes map[string]string // declared by the server's stream header
	out      *outbox
	flying   *window
	lanes    *lanes       // for the workers
	asking   *admit.Bound // queries by the bare JID that asks
	ctx      context.Context
	cancel   context.CancelFunc

	turns     map[*host]*turns
	addresses map[string]jid.JID // the reader's

	mu    sync.Mutex
	cause error // why it ends; the first counts
}

func newStream(l *link, w *wire.Conn) *stream {
	s := &stream{
		l: l, conn: w.Conn, prefixes: w.Prefixes(),
		frames:    &frames{in: w.Rest(), limit: 2 * l.limits.MaxBytes},
		out:       newOutbox(),
		flying:    newWindow(l.limits.Window),
		lanes:     newLanes(l.limits.Queries, l.limits.Waiting),
		asking:    admit.NewBound(l.limits.PerUser),
		turns:     make(map[*host]*turns, len(l.hosts)),
		addresses: make(map[string]jid.JID),
	}
	for _, h := range l.hosts {
		s.turns[h] = new(turns)
	}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	return s
}

// errStopping: mamlog ends the stream.
var errStopping = errors.New("mamlog is stopping")

// run serves the stream until it ends, and returns why it did. The connection is
// closed then, and nothing of the stream goes on but appends that the archive
// has; their answers are dropped.
func (s *stream) run(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() { s.end(errStopping) })
	defer stop()
	var wg sync.WaitGroup
	written := make(chan struct{})
	go func() {
		defer close(written)
		s.write()
	}()
	for range s.l.limits.Queries {
		wg.Go(s.work)
	}
	wg.Go(s.keepAlive)
	missing := time.AfterFunc(s.l.limits.HelloTimeout, s.l.missHello)
	defer missing.Stop()

	err := s.read()
	s.end(err)
	err = s.why()
	words := ""
	var ours *stanza.StreamError
	switch {
	case errors.Is(err, errStopping), errors.Is(err, errEnded):
		s.flying.drain(s.l.limits.CloseTimeout)
		words = "</stream:stream>"
	case errors.As(err, &ours):
		words = streamError(ours)
	}
	s.out.close(words)
	s.cancel()
	s.conn.SetWriteDeadline(time.Now().Add(s.l.limits.CloseTimeout))
	<-written
	if words != "" {
		s.hangUp()
	}
	s.conn.Close()
	wg.Wait()
	s.l.waiting(-s.lanes.left()) // nobody takes them any more
	return err
}

// end makes the reader return; the first cause counts. It doesn't block.
func (s *stream) end(cause error) {
	s.mu.Lock()
	if s.cause == nil {
		s.cause = cause
	}
	s.mu.Unlock()
	s.flying.close()
	s.conn.SetReadDeadline(time.Unix(1, 0))
}

func (s *stream) why() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.cause
}

// hangUp closes this side and gives the server a moment to close its own: to
// close a socket with unread bytes would take the last words back (RST).
func (s *stream) hangUp() {
	if c, ok := s.conn.(interface{ CloseWrite() error }); ok {
		c.CloseWrite()
	}
	s.conn.SetReadDeadline(time.Now().Add(time.Second))
	io.Copy(io.Discard, s.conn)
}

func (s *stream) read() error {
	for {
		f, err := s.frames.next()
		if err == io.EOF {
			return errEnded
		}
		if err != nil {
			return err
		}
		if err := s.handle(f); err != nil {
			return err
		}
		if !s.out.roomForAnswers() {
			return s.why()
		}
	}
}

// write is the only writer of the connection.
func (s *stream) write() {
	var answers []byte
	for last := false; !last; {
		var page []byte
		answers, page, last = s.out.take(answers)
		if !last {
			s.conn.SetWriteDeadline(time.Now().Add(s.l.limits.WriteTimeout))
		}
		b := net.Buffers{answers, page}
		if _, err := b.WriteTo(s.conn); err != nil {
			if errors.Is(err, os.ErrDeadlineExceeded) {
				err = errNotReading
			}
			s.end(err)
			s.out.close("")
			return
		}
	}
}

// errNotReading: the server left what was sent to it unread.
var errNotReading = errors.New("the server does not read what is sent to it")

// work does what may take long.
func (s *stream) work() {
	for {
		select {
		case <-s.ctx.Done():
			return
		case owner := <-s.lanes.next:
			s.lanes.do(owner, func(job func()) {
				if s.out.roomForPages() {
					job()
				}
				s.l.waiting(-1)
				s.l.queries.answered.Add(1)
			})
		}
	}
}

// keepAlive writes blanks: where the server's machine is gone they aren't
// acknowledged, which the system notices.
func (s *stream) keepAlive() {
	t := time.NewTicker(s.l.limits.KeepAlive)
	defer t.Stop()
	for {
		select {
		case <-s.ctx.Done():
			return
		case <-t.C:
			s.out.answer([]byte(" "))
		}
	}
}

// parse reads one element as it stands on this stream.
func (s *stream) parse(b []byte) (*stanza.Element, error) {
	r := stanza.NewReader(bytes.NewBuffer(b), s.prefixes, stanza.Limits{Bytes: len(b) + 1, Depth: maxDepth, Attrs: maxAttrs})
	e, err := r.Next()
	return e, unexpected(err)
}

// parseStart reads the start tag of the element that b begins with, and that of its
// first child if it can be read.
func (s *stream) parseStart(b []byte) (*stanza.Element, error) {
	outer, inner := startTags(b)
	if outer < 2 {
		return nil, &stanza.StreamError{Condition: "policy-violation", Text: "the start tag of a stanza is too large"}
	}
	if inner > outer {
		if e, err := s.parse(append(closed(b[:inner]), "</"+tagName(b)+">"...)); err == nil {
			return e, nil
		}
	}
	return s.parse(closed(b[:outer]))
}

// closed is b, which ends with a start tag, with that made an empty element.
func closed(b []byte) []byte {
	b = bytes.TrimSuffix(append([]byte(nil), b[:len(b)-1]...), []byte("/"))
	return append(b, "/>"...)
}

// maxAddresses is how many JIDs a stream remembers.
const maxAddresses = 1 << 14

// address returns the JID that text names. Preparing one takes longer than most of
// what is done for an append, so the reader, which is the only one to call it,
// remembers them.
func (s *stream) address(text string) (jid.JID, error) {
	if j, ok := s.addresses[text]; ok {
		return j, nil
	}
	j, err := jid.Parse(text)
	if err != nil {
		return j, err
	}
	if len(s.addresses) >= maxAddresses {
		clear(s.addresses)
	}
	s.addresses[strings.Clone(text)] = j // text shares the memory of a whole stanza
	return j, nil
}

// streamError is the end of a stream because of se.
func streamError(se *stanza.StreamError) string {
	b := []byte("<stream:error>")
	b = stanza.New(nsStreams, se.Condition).Append(b, nsAccept)
	if se.Text != "" {
		b = stanza.New(nsStreams, "text").AddText(se.Text).Append(b, nsAccept)
	}
	return string(b) + "</stream:error></stream:stream>"
}
