package conformance

import (
	"context"
	"crypto/tls"
	"encoding/base64"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// patience bounds every wait for something that must happen. It is generous
// because a loaded machine is no reason to fail.
const patience = 60 * time.Second

// Client is the smallest client that can log in: a socket, PLAIN, a bound
// resource. It exists because the transcripts must see every stanza as it was
// sent and the kill -9 rounds need speed; interoperability is what the real
// clients are for.
type Client struct {
	JID  string // as bound
	Bare string

	// NoAcks: what arrives is not acknowledged (XEP-0198). Set before Manage.
	NoAcks bool

	// Taken is how many of the stanzas sent over a stream the server had taken
	// when it was resumed here (XEP-0198).
	Taken uint32

	conn     net.Conn
	space    string // of the stream's stanzas; "" for that of clients
	from     string // the attribute, where stanzas need one
	patience time.Duration
	signal   chan struct{} // something below has changed

	mu       sync.Mutex // guards what follows
	queue    []*Element // stanzas not yet taken by Next
	presence []*Element // of rooms, not yet taken by Join or Leave
	looks    []*Element // answers to what Gone has asked
	err      error      // why reading ended
	handled  uint32     // stanzas received, since Manage where that was called
}

// DialOptions say how a client logs in.
type DialOptions struct {
	Addr     string
	Domain   string
	User     string
	Password string
	Resource string
	StartTLS bool // else plain text, which the server allows on loopback

	// Patience bounds the wait for each stanza; 0 for a generous time.
	Patience time.Duration

	// Resume is the stream to take up again, by its id of XEP-0198, instead of
	// binding Resource; Handled says how many of its stanzas had arrived.
	Resume  string
	Handled uint32
}

// Dial logs in and binds the resource; it sends no presence.
func Dial(ctx context.Context, o DialOptions) (*Client, error) {
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", o.Addr)
	if err != nil {
		return nil, err
	}
	c := &Client{conn: conn, patience: o.Patience, signal: make(chan struct{}, 1)}
	if c.patience == 0 {
		c.patience = patience
	}
	deadline, ok := ctx.Deadline()
	if !ok {
		deadline = time.Now().Add(patience)
	}
	_ = conn.SetDeadline(deadline)
	dec, err := c.login(o)
	if err != nil {
		_ = conn.Close()
		return nil, fmt.Errorf("logging in as %s@%s: %w", o.User, o.Domain, err)
	}
	_ = c.conn.SetDeadline(time.Time{})
	go c.read(dec)
	return c, nil
}

func (c *Client) login(o DialOptions) (*xml.Decoder, error) {
	dec, features, err := c.open(o.Domain)
	if err != nil {
		return nil, err
	}
	if o.StartTLS {
		if features.Child("{"+nsTLS+"}starttls") == nil {
			return nil, fmt.Errorf("STARTTLS is not offered in %s", features)
		}
		if err := c.Send("<starttls xmlns='" + nsTLS + "'/>"); err != nil {
			return nil, err
		}
		answer, err := nextElement(dec)
		if err != nil {
			return nil, err
		}
		if answer.Name.Local != "proceed" {
			return nil, fmt.Errorf("STARTTLS refused: %s", answer)
		}
		c.conn = tls.Client(c.conn, &tls.Config{InsecureSkipVerify: true}) // self-signed on loopback
		if _, features, err = c.open(o.Domain); err != nil {
			return nil, err
		}
	}
	if features.Child("{"+nsSASL+"}mechanisms") == nil {
		return nil, fmt.Errorf("no SASL mechanisms in %s", features)
	}
	plain := base64.StdEncoding.EncodeToString([]byte("\x00" + o.User + "\x00" + o.Password))
	dec = c.decoder()
	if err := c.Send("<auth xmlns='" + nsSASL + "' mechanism='PLAIN'>" + plain + "</auth>"); err != nil {
		return nil, err
	}
	answer, err := nextElement(dec)
	if err != nil {
		return nil, err
	}
	if answer.Name.Local != "success" {
		return nil, fmt.Errorf("authentication failed: %s", answer)
	}
	if dec, _, err = c.open(o.Domain); err != nil {
		return nil, err
	}
	if o.Resume != "" {
		return dec, c.resume(dec, o)
	}
	resource := ""
	if o.Resource != "" {
		resource = "<resource>" + escape(o.Resource) + "</resource>"
	}
	if err := c.Send("<iq type='set' id='bind'><bind xmlns='" + nsBind + "'>" + resource + "</bind></iq>"); err != nil {
		return nil, err
	}
	answer, err = nextElement(dec)
	if err != nil {
		return nil, err
	}
	c.JID = answer.Child("bind", "jid").Content()
	if c.JID == "" {
		return nil, fmt.Errorf("binding failed: %s", answer)
	}
	c.Bare = bare(c.JID)
	return dec, nil
}

func (c *Client) decoder() *xml.Decoder {
	d := xml.NewDecoder(c.conn)
	d.DefaultSpace = nsClient
	return d
}

// open starts a stream and returns its decoder and features.
func (c *Client) open(domain string) (*xml.Decoder, *Element, error) {
	err := c.Send("<?xml version='1.0'?><stream:stream xmlns='" + nsClient + "' xmlns:stream='" + nsStream +
		"' version='1.0' to='" + domain + "'>")
	if err != nil {
		return nil, nil, err
	}
	dec := c.decoder()
	if _, err := streamHeader(dec); err != nil {
		return nil, nil, err
	}
	features, err := nextElement(dec)
	if err != nil {
		return nil, nil, err
	}
	if features.Name.Local != "features" {
		return nil, nil, fmt.Errorf("want stream features, got %s", features)
	}
	return dec, features, nil
}

func streamHeader(dec *xml.Decoder) (xml.StartElement, error) {
	for {
		tok, err := dec.Token()
		if err != nil {
			return xml.StartElement{}, err
		}
		if start, ok := tok.(xml.StartElement); ok {
			if start.Name.Local != "stream" {
				return start, fmt.Errorf("want a stream header, got <%s>", start.Name.Local)
			}
			return start, nil
		}
	}
}

// nextElement reads the next child of the stream.
func nextElement(dec *xml.Decoder) (*Element, error) {
	for {
		tok, err := dec.Token()
		if err != nil {
			return nil, err
		}
		switch t := tok.(type) {
		case xml.StartElement:
			return readElement(dec, t)
		case xml.EndElement:
			return nil, io.EOF
		}
	}
}

func (c *Client) read(dec *xml.Decoder) {
	for {
		e, err := nextElement(dec)
		if err == nil && c.space != "" {
			e.rename(c.space, nsClient)
		}
		c.mu.Lock()
		switch {
		case err != nil:
			c.err = err
		case e.Name.Local == "presence":
			// No case here is about presence but that of rooms.
			if e.Child("{"+nsMUC+"#user}x") != nil || e.Attr("type") == "error" {
				c.presence = append(c.presence, e)
			}
		case e.Name.Local == "iq" && e.Attr("type") == "set" && c.space == "":
			// Roster pushes: answered, as RFC 6121 demands, and not shown.
			_ = c.Send("<iq type='result' id='" + escape(e.Attr("id")) + "'/>")
		case e.Name.Space == nsSM:
			c.manage(e)
		case e.Attr("type") == "get" && e.Child("{"+nsPing+"}ping") != nil:
			_ = c.Send("<iq type='result' to='" + escape(e.Attr("from")) + "' id='" + escape(e.Attr("id")) + "'/>")
		case e.Name.Local == "iq" && strings.HasPrefix(e.Attr("id"), lookID):
			c.looks = append(c.looks, e)
		case isRoomNotice(e):
		default:
			c.queue = append(c.queue, e)
		}
		if err == nil && e.Name.Space == nsClient {
			c.handled++
		}
		c.mu.Unlock()
		select {
		case c.signal <- struct{}{}:
		default:
		}
		if err != nil {
			return
		}
	}
}

// Send writes bytes to the stream as they are.
func (c *Client) Send(s string) error {
	_, err := io.WriteString(c.conn, s)
	return err
}

var errTimeout = errors.New("nothing arrived in time")

// Next waits for the next stanza. Only one goroutine may wait at a time.
func (c *Client) Next() (*Element, error) {
	return c.take(&c.queue, func(*Element) bool { return true })
}

// take waits for the first element of a list that fits, and removes it.
func (c *Client) take(list *[]*Element, fits func(*Element) bool) (*Element, error) {
	return c.takeIn(c.patience, list, fits)
}

func (c *Client) takeIn(patience time.Duration, list *[]*Element, fits func(*Element) bool) (*Element, error) {
	timer := time.NewTimer(patience)
	defer timer.Stop()
	for {
		c.mu.Lock()
		if i := slices.IndexFunc(*list, fits); i >= 0 {
			e := (*list)[i]
			if i == 0 {
				*list = (*list)[1:]
			} else {
				*list = slices.Delete(*list, i, i+1)
			}
			c.mu.Unlock()
			return e, nil
		}
		err := c.err
		c.mu.Unlock()
		if err != nil {
			return nil, err
		}
		select {
		case <-c.signal:
		case <-timer.C:
			return nil, errTimeout
		}
	}
}

// Close ends the stream politely; Drop cuts the connection.
func (c *Client) Close() {
	_ = c.Send("</stream:stream>")
	_ = c.conn.Close()
}

// Drop cuts the connection without a word.
func (c *Client) Drop() { _ = c.conn.Close() }

// Call sends an IQ of the given type to the own account and returns the answer,
// failing on any other stanza that arrives first.
func (c *Client) Call(typ, payload string) (*Element, error) { return c.CallTo("", typ, payload) }

// CallTo is Call with an address.
func (c *Client) CallTo(to, typ, payload string) (*Element, error) {
	return c.call(c.from, to, typ, payload)
}

// CallFrom is CallTo with the address of whoever asks, for one who speaks for many.
func (c *Client) CallFrom(from, to, typ, payload string) (*Element, error) {
	if from != "" {
		from = " from='" + escape(from) + "'"
	}
	return c.call(from, to, typ, payload)
}

func (c *Client) call(from, to, typ, payload string) (*Element, error) {
	id := newID()
	if to != "" {
		to = " to='" + escape(to) + "'"
	}
	if err := c.Send("<iq type='" + typ + "'" + from + to + " id='" + id + "'>" + payload + "</iq>"); err != nil {
		return nil, err
	}
	e, err := c.Next()
	if err != nil {
		return nil, err
	}
	if e.Name.Local != "iq" || e.Attr("id") != id {
		return nil, fmt.Errorf("want the answer to %s, got %s", payload, e)
	}
	return e, nil
}

// Available sends initial presence and waits until the server has seen it.
func (c *Client) Available() error {
	id := newID()
	// A stream is processed in order, so the ping's answer, whatever it is,
	// shows that the presence before it was processed.
	if err := c.Send("<presence/><iq type='get' id='" + id + "'><ping xmlns='" + nsPing + "'/></iq>"); err != nil {
		return err
	}
	// Stored messages may come first; they stay for the caller.
	var held []*Element
	for {
		e, err := c.Next()
		if err != nil {
			return fmt.Errorf("waiting for the answer to a ping: %w", err)
		}
		if e.Name.Local == "iq" && e.Attr("id") == id {
			c.mu.Lock()
			c.queue = append(held, c.queue...)
			c.mu.Unlock()
			return nil
		}
		held = append(held, e)
	}
}

var lastID atomic.Uint64

// newID returns a stanza id that no other client of this process used.
func newID() string { return "t" + strconv.FormatUint(lastID.Add(1), 36) }

func bare(jid string) string {
	for i := range len(jid) {
		if jid[i] == '/' {
			return jid[:i]
		}
	}
	return jid
}
