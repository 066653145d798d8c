package c2s

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	stdlog "log"
	"net"
	"net/http"
	"time"

	"github.com/coder/websocket"
	"go.uber.org/zap"

	"mamlog/attach/wire"
	"mamlog/xep0313/stanza"
)

const nsFraming = "urn:ietf:params:xml:ns:xmpp-framing"

// webSocketPath is where the endpoint is; XEP-0156 files point to it.
const webSocketPath = "/xmpp-websocket"

func (s *Server) newHTTP() *http.Server {
	mux := http.NewServeMux()
	mux.HandleFunc(webSocketPath, s.serveWebSocket)
	mux.HandleFunc("/.well-known/host-meta", s.hostMeta)
	mux.HandleFunc("/.well-known/host-meta.json", s.hostMeta)
	h := &http.Server{
		Handler:           mux,
		ReadHeaderTimeout: s.limits.LoginTimeout,
		IdleTimeout:       time.Minute,
		MaxHeaderBytes:    16 << 10,
		ErrorLog:          stdlog.New(io.Discard, "", 0),
		ConnContext:       withAdmitted,
	}
	if !s.c.AllowPlaintext {
		h.TLSConfig = s.tls.Clone()
		h.TLSConfig.NextProtos = []string{"http/1.1"} // WebSocket as RFC 6455 has it
		s.ws = tls.NewListener(s.ws, h.TLSConfig)
	}
	return h
}

// hostMeta tells web clients where the endpoint is (XEP-0156). The name is taken
// from the request, since that is how the client reached us.
func (s *Server) hostMeta(w http.ResponseWriter, r *http.Request) {
	scheme := "wss"
	if s.c.AllowPlaintext {
		scheme = "ws"
	}
	const rel = "urn:xmpp:alt-connections:websocket"
	href := scheme + "://" + r.Host + webSocketPath
	w.Header().Set("Access-Control-Allow-Origin", "*")
	if r.URL.Path == "/.well-known/host-meta.json" {
		w.Header().Set("Content-Type", "application/json")
		json.NewEncoder(w).Encode(map[string]any{"links": []map[string]string{{"rel": rel, "href": href}}})
		return
	}
	w.Header().Set("Content-Type", "application/xrd+xml")
	xrd := stanza.New("http://docs.oasis-open.org/ns/xri/xrd-1.0", "XRD")
	xrd.Add(stanza.New(xrd.Space, "Link", "rel", rel, "href", href))
	fmt.Fprintf(w, "<?xml version='1.0' encoding='utf-8'?>%s", xrd.Bytes())
}

// serveWebSocket serves one client. Pages of any origin may connect: a login
// takes a password, and no cookie lets a foreign page act for a user.
func (s *Server) serveWebSocket(w http.ResponseWriter, r *http.Request) {
	c, err := websocket.Accept(w, r, &websocket.AcceptOptions{
		Subprotocols: []string{"xmpp"}, InsecureSkipVerify: true,
	})
	if err != nil {
		s.logger.Debug("c2s: accept a WebSocket", zap.Error(err))
		return
	}
	if c.Subprotocol() != "xmpp" {
		c.Close(websocket.StatusPolicyViolation, "the subprotocol is xmpp (RFC 7395)")
		return
	}
	c.SetReadLimit(-1) // it would close without a stream error; newFrames has its own
	f := newFrames(c, r.RemoteAddr, s.limits.Stanza.Bytes)
	defer f.Close()
	if !s.track(f) {
		return
	}
	defer s.untrack(f)
	place := r.Context().Value(admittedKey{}).(*admitted)
	n := &negotiation{s: s, conn: f, loggedIn: place.loggedIn, wire: wire.New(f, stanza.NSClient), framed: true}
	l := &frameLink{s: s, frames: f}
	x := n.negotiate(context.Background(), !s.c.AllowPlaintext)
	if x == nil {
		l.interrupt() // finish waits for the client
		l.finish()
		return
	}
	x.run(l)
}

// frames makes a net.Conn of a WebSocket for negotiation: what is read is one
// message after another, what is written at once is one message.
type frames struct {
	c      *websocket.Conn
	peer   peerAddr
	limit  int    // bytes of a message
	rest   []byte // of the message that is being read
	ctx    context.Context
	cancel context.CancelFunc

	deadline time.Time // for each operation; one goroutine uses it
}

func newFrames(c *websocket.Conn, peer string, limit int) *frames {
	f := &frames{c: c, peer: peerAddr(peer), limit: limit}
	f.ctx, f.cancel = context.WithCancel(context.Background())
	return f
}

type peerAddr string

func (peerAddr) Network() string  { return "websocket" }
func (p peerAddr) String() string { return string(p) }

func (f *frames) context() (context.Context, context.CancelFunc) {
	if f.deadline.IsZero() {
		return f.ctx, func() {}
	}
	return context.WithDeadline(f.ctx, f.deadline)
}

func (f *frames) Read(p []byte) (int, error) {
	for len(f.rest) == 0 {
		ctx, cancel := f.context()
		b, err := f.message(ctx)
		cancel()
		if err != nil {
			return 0, err
		}
		f.rest = b
	}
	n := copy(p, f.rest)
	f.rest = f.rest[n:]
	return n, nil
}

// message reads the next one. What is larger than allowed is a *stanza.StreamError
// like any other, so that the client is told before the WebSocket is closed.
func (f *frames) message(ctx context.Context) ([]byte, error) {
	kind, r, err := f.c.Reader(ctx)
	if err != nil {
		return nil, frameError(err)
	}
	if kind != websocket.MessageText {
		return nil, errBinary
	}
	b, err := io.ReadAll(io.LimitReader(r, int64(f.limit)+1))
	switch {
	case err != nil:
		return nil, frameError(err)
	case len(b) > f.limit:
		return nil, &stanza.StreamError{Condition: "policy-violation", Text: fmt.Sprintf("a message is at most %d bytes", f.limit)}
	}
	return b, nil
}

var errBinary = &stanza.StreamError{Condition: "bad-format", Text: "XMPP goes in text messages (RFC 7395 section 3.2)"}

// frameError makes an io.EOF of the client's leaving.
func frameError(err error) error {
	if websocket.CloseStatus(err) != -1 || errors.Is(err, io.EOF) {
		return io.EOF
	}
	return err
}

func (f *frames) Write(p []byte) (int, error) {
	ctx, cancel := f.context()
	defer cancel()
	if err := f.c.Write(ctx, websocket.MessageText, p); err != nil {
		return 0, err
	}
	return len(p), nil
}

func (f *frames) Close() error {
	f.cancel()
	return f.c.CloseNow()
}

func (f *frames) LocalAddr() net.Addr                { return peerAddr("") }
func (f *frames) RemoteAddr() net.Addr               { return f.peer }
func (f *frames) SetDeadline(t time.Time) error      { f.deadline = t; return nil }
func (f *frames) SetReadDeadline(time.Time) error    { return errors.ErrUnsupported }
func (f *frames) SetWriteDeadline(t time.Time) error { return errors.ErrUnsupported }

// frameLink is a stream as RFC 7395 has it.
type frameLink struct {
	s      *Server
	frames *frames
}

func (l *frameLink) next() (*stanza.Element, error) {
	for {
		b, err := l.frames.message(l.frames.ctx)
		if err != nil {
			return nil, err
		}
		r := stanza.NewReader(bytes.NewReader(b), map[string]string{"": stanza.NSClient}, l.s.limits.Stanza)
		e, err := r.Next()
		if err == io.EOF {
			continue // whitespace
		}
		if err == io.ErrUnexpectedEOF {
			err = &stanza.StreamError{Condition: "not-well-formed", Text: "the message ends in the middle of an element"}
		}
		if err != nil {
			return nil, err
		}
		if e.Is(nsFraming, "close") {
			return nil, io.EOF
		}
		if _, err := r.Next(); err != io.EOF {
			return nil, &stanza.StreamError{Condition: "bad-format", Text: "a message holds one element (RFC 7395 section 3.3.3)"}
		}
		return e, nil
	}
}

func (l *frameLink) write(batch [][]byte) error {
	for _, b := range batch {
		ctx, cancel := context.WithTimeout(l.frames.ctx, l.s.limits.WriteTimeout)
		err := l.frames.c.Write(ctx, websocket.MessageText, b)
		cancel()
		if err != nil {
			return err
		}
	}
	return nil
}

// interrupt leaves it to finish to end the reading: to interrupt a read is to
// close the WebSocket, and the last words would be lost.
func (l *frameLink) interrupt() {
	time.AfterFunc(l.s.limits.CloseTimeout, func() { l.frames.Close() })
}

func (l *frameLink) finish() { l.frames.c.Close(websocket.StatusNormalClosure, "") }

func (l *frameLink) hangUp() {}
