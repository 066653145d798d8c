package bench

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"mamlog/integrations/peers"
)

// patience bounds the wait for one answer. It only ends what hangs.
const patience = 2 * time.Minute

// splitter cuts a stream into its header and the elements below the root. It is
// for what servers send, trusts them to send XML, and looks at no byte twice: the
// load must cost little, since it runs on the processors of the servers it
// measures.
type splitter struct {
	r     io.Reader
	buf   []byte
	start int // of the element that is being read
	pos   int // up to which buf was looked at
	end   int

	depth int
	quote byte // within a tag: of the attribute's value, or 0
	tag   int  // where the tag began, or -1
}

func newSplitter(r io.Reader) *splitter {
	return &splitter{r: r, buf: make([]byte, 64<<10), tag: -1}
}

// reset is for a stream that begins anew on the same connection.
func (s *splitter) reset() { s.depth = 0 }

// next returns the next element, or the header of a stream. It is valid until the
// next call. The end of the stream is io.EOF.
func (s *splitter) next() ([]byte, error) {
	for {
		if b, err := s.scan(); b != nil || err != nil {
			return b, err
		}
		if err := s.fill(); err != nil {
			return nil, err
		}
	}
}

func (s *splitter) fill() error {
	if s.start > 0 {
		copy(s.buf, s.buf[s.start:s.end])
		s.end, s.pos = s.end-s.start, s.pos-s.start
		if s.tag >= 0 {
			s.tag -= s.start
		}
		s.start = 0
	}
	if s.end == len(s.buf) {
		s.buf = append(s.buf, make([]byte, len(s.buf))...)
	}
	n, err := s.r.Read(s.buf[s.end:])
	s.end += n
	if n > 0 {
		return nil
	}
	if err == nil {
		err = io.ErrNoProgress
	}
	return err
}

// scan goes on until an element is complete.
func (s *splitter) scan() ([]byte, error) {
	for s.pos < s.end {
		if s.tag < 0 {
			i := bytes.IndexByte(s.buf[s.pos:s.end], '<')
			if i < 0 {
				s.pos = s.end
				if s.depth <= 1 {
					s.start = s.pos // blanks between stanzas
				}
				break
			}
			s.tag = s.pos + i
			s.pos = s.tag + 1
			if s.depth <= 1 {
				s.start = s.tag
			}
		}
		for ; s.pos < s.end; s.pos++ {
			switch c := s.buf[s.pos]; {
			case s.quote != 0:
				if c == s.quote {
					s.quote = 0
				}
				continue
			case c == '\'' || c == '"':
				s.quote = c
				continue
			case c != '>':
				continue
			}
			break
		}
		if s.pos == s.end {
			break
		}
		tag := s.buf[s.tag : s.pos+1]
		s.pos++
		s.tag = -1
		switch {
		case tag[1] == '?':
			s.start = s.pos
			continue
		case tag[1] == '!':
			return nil, fmt.Errorf("the server sent %.20q, which is not allowed on a stream", tag)
		case tag[1] == '/':
			s.depth--
		case tag[len(tag)-2] == '/':
		default:
			s.depth++
			if s.depth == 1 {
				return s.take(), nil // the header
			}
		}
		switch s.depth {
		case 0:
			return nil, io.EOF
		case 1:
			return s.take(), nil
		}
	}
	return nil, nil
}

func (s *splitter) take() []byte {
	b := s.buf[s.start:s.pos]
	s.start = s.pos
	return b
}

// attr is the value of an attribute in the first tag of an element; nil if it is
// not there.
func attr(element []byte, name string) []byte {
	for i := 0; i < len(element) && element[i] != '>'; i++ {
		if q := element[i]; q == '\'' || q == '"' {
			n := bytes.IndexByte(element[i+1:], q)
			if n < 0 {
				return nil
			}
			before := element[:i]
			if bytes.HasSuffix(before, []byte("=")) && bytes.HasSuffix(before[:i-1], []byte(name)) {
				if c := before[i-2-len(name)]; c == ' ' || c == '\n' || c == '\t' {
					return element[i+1 : i+1+n]
				}
			}
			i += n + 1
		}
	}
	return nil
}

// is tells whether the element has that local name.
func is(element []byte, name string) bool {
	if len(element) < len(name)+2 || string(element[1:1+len(name)]) != name {
		return false
	}
	c := element[1+len(name)]
	return c == ' ' || c == '>' || c == '/'
}

// conn is a client that has logged in.
type conn struct {
	net.Conn
	in  *splitter
	jid string // full
	ids int
}

// dial logs in with SASL PLAIN. What must not be missed is read from the start:
// presence is sent by available.
func dial(ctx context.Context, s *peers.Server, user, resource string) (_ *conn, err error) {
	var d net.Dialer
	nc, err := d.DialContext(ctx, "tcp", s.C2SAddr)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			_ = nc.Close()
			err = fmt.Errorf("log in to %s as %s: %w", s.Name, user, err)
		}
	}()
	if err := nc.SetDeadline(time.Now().Add(patience)); err != nil {
		return nil, err
	}
	c := &conn{Conn: nc, in: newSplitter(nc)}
	auth := base64.StdEncoding.EncodeToString([]byte("\x00" + user + "\x00" + peers.Password))
	header := "<stream:stream xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams' version='1.0' to='" + s.Host + "'>"
	for _, step := range []struct{ send, want string }{
		{header, "stream:features"},
		{"<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>" + auth + "</auth>", "success"},
		{header, "stream:features"},
		{"<iq type='set' id='bind'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'><resource>" + resource + "</resource></bind></iq>", "iq"},
		{"<iq type='set' id='session'><session xmlns='urn:ietf:params:xml:ns:xmpp-session'/></iq>", "iq"},
	} {
		if step.send == header {
			c.in.reset()
		}
		if _, err := io.WriteString(c, step.send); err != nil {
			return nil, err
		}
		var e []byte
		for !is(e, step.want) {
			if e, err = c.in.next(); err != nil {
				return nil, err
			}
			if is(e, "failure") || is(e, "stream:error") || string(attr(e, "type")) == "error" && string(attr(e, "id")) != "session" {
				return nil, fmt.Errorf("refused: %s", e)
			}
		}
		if i := bytes.Index(e, []byte("<jid>")); i >= 0 {
			c.jid = string(e[i+5 : bytes.Index(e, []byte("</jid>"))])
		}
	}
	if c.jid == "" {
		return nil, errors.New("no resource was bound")
	}
	return c, nc.SetDeadline(time.Time{})
}

// available lets messages to the bare JID come, and returns when they do.
func (c *conn) available() error {
	if _, err := io.WriteString(c, "<presence/>"); err != nil {
		return err
	}
	_, err := c.await(func(e []byte) bool { return is(e, "presence") && string(attr(e, "from")) == c.jid })
	return err
}

// await reads until f says so.
func (c *conn) await(f func([]byte) bool) ([]byte, error) {
	if err := c.SetReadDeadline(time.Now().Add(patience)); err != nil {
		return nil, err
	}
	for {
		e, err := c.in.next()
		if err != nil {
			return nil, err
		}
		if is(e, "stream:error") {
			return nil, fmt.Errorf("the server ended the stream: %s", e)
		}
		if f(e) {
			return e, c.SetReadDeadline(time.Time{})
		}
	}
}

// ask sends an iq and returns its answer. each, if not nil, is given the messages
// that come before it. An answer that is an error is a *pageError.
func (c *conn) ask(typ, to, payload string, each func([]byte) error) ([]byte, error) {
	c.ids++
	id := fmt.Sprintf("q%d", c.ids)
	if to != "" {
		to = "' to='" + to
	}
	if _, err := io.WriteString(c, "<iq type='"+typ+to+"' id='"+id+"'>"+payload+"</iq>"); err != nil {
		return nil, err
	}
	var bad error
	e, err := c.await(func(e []byte) bool {
		if each != nil && bad == nil && is(e, "message") {
			bad = each(e)
		}
		return is(e, "iq") && string(attr(e, "id")) == id
	})
	if err == nil {
		err = bad
	}
	if err == nil && string(attr(e, "type")) != "result" {
		err = &pageError{fmt.Errorf("the answer is %s", e)}
	}
	return e, err
}
