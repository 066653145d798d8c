package conformance

import (
	"context"
	"encoding/xml"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Run plays a transcript on a host, with the suffix in the names of its
// accounts. The error names the line, shows what was wanted, what came and how
// they differ, and ends with the conversation up to there. Each wait for a
// stanza is bounded by wait, or generously where that is 0.
func (t *Transcript) Run(ctx context.Context, h Host, suffix string, wait time.Duration) error {
	r := &run{
		host: h, suffix: suffix, wait: wait,
		clients: map[string]*Client{}, joined: map[string][]string{},
		asked: map[string]*query{}, lastIQ: map[string]string{},
		vars: Vars{}, bodies: map[string]string{},
	}
	defer r.close()
	for _, u := range t.Users {
		if err := h.AddUser(ctx, u+"-"+suffix); err != nil {
			return err
		}
	}
	for _, step := range t.on(h, suffix) {
		if err := r.step(ctx, step); err != nil {
			return fmt.Errorf("%s.txt:%d: %w\n\nThe conversation so far:\n%s", t.Name, step.Line, err, strings.Join(r.log, "\n"))
		}
	}
	if err := r.nothing(); err != nil {
		return fmt.Errorf("%s.txt: at its end: %w\n\nThe conversation:\n%s", t.Name, err, strings.Join(r.log, "\n"))
	}
	return nil
}

// run is the state of one transcript being played.
type run struct {
	host   Host
	suffix string
	wait   time.Duration

	order   []string            // labels, in order of connection
	clients map[string]*Client  // by "user/resource"
	joined  map[string][]string // occupant JIDs, by label
	asked   map[string]*query   // the last query, by label
	lastIQ  map[string]string   // id of the last IQ sent, by label
	vars    Vars
	bodies  map[string]string // patterns of the fixture's messages, by name of id
	log     []string
}

func (r *run) note(who, arrow, what string) {
	r.log = append(r.log, who+arrow+" "+what)
}

func (r *run) close() {
	for _, label := range r.order {
		r.clients[label].Close()
	}
}

// find resolves "juliet/balcony", or "juliet" to her first resource.
func (r *run) find(who string) (string, *Client, error) {
	for _, label := range r.order {
		if label == who || strings.HasPrefix(label, who+"/") {
			return label, r.clients[label], nil
		}
	}
	return "", nil, fmt.Errorf("%s is not connected", who)
}

func (r *run) step(ctx context.Context, s Step) error {
	switch s.Op {
	case "account":
		return nil // made before the first step
	case "connect":
		f := strings.Fields(s.Arg)
		if len(f) < 2 {
			return fmt.Errorf("connect wants a user and a resource")
		}
		return r.connect(ctx, f[0], f[1], f[2:])
	case "disconnect", "drop":
		label, c, err := r.find(s.Arg)
		if err != nil {
			return err
		}
		if s.Op == "drop" {
			c.Drop()
		} else {
			c.Close()
		}
		delete(r.clients, label)
		delete(r.joined, label)
		r.order = slices.DeleteFunc(r.order, func(l string) bool { return l == label })
		return nil
	case "room", "join", "leave", "affiliate", "gone":
		return r.enter(s.Op, strings.Fields(s.Arg))
	case "archive":
		return r.archive(ctx, strings.Fields(s.Arg))
	case "expect":
		return r.nothing()
	case "differ":
		return r.differ(strings.Fields(s.Arg))
	}

	label, c, err := r.find(s.Who)
	if err != nil {
		return err
	}
	switch s.Op {
	case ">":
		out, err := r.vars.Expand(s.Arg)
		if err != nil {
			return err
		}
		e, err := ParseElement(out)
		if err != nil {
			return fmt.Errorf("not a stanza: %w", err)
		}
		if e.Name.Local == "iq" {
			r.lastIQ[label] = e.Attr("id")
		}
		r.note(label, ">", out)
		return c.Send(out)
	case "<":
		return r.expect(label, c, s.Arg)
	case "<?":
		return r.maybe(label, c, s.Arg)
	case "asks":
		q, err := buildQuery(s.Arg, r.vars)
		if err != nil {
			return err
		}
		r.asked[label], r.lastIQ[label] = q, q.id
		r.note(label, ">", q.xml)
		return c.Send(q.xml)
	case "gets":
		q := r.asked[label]
		if q == nil {
			return fmt.Errorf("%s has asked nothing", label)
		}
		patterns, err := expectPage(s.Arg, c.Bare, c.JID, q, r.bodies)
		if err != nil {
			return err
		}
		for _, p := range patterns {
			if err := r.expect(label, c, p); err != nil {
				return err
			}
		}
		return nil
	case "fails":
		patterns, err := expectError(s.Arg, r.lastIQ[label], c.JID)
		if err != nil {
			return err
		}
		return r.expect(label, c, patterns...)
	}
	return fmt.Errorf("no such step: %s", s.Op)
}

func (r *run) connect(ctx context.Context, user, resource string, flags []string) error {
	for _, f := range flags {
		if !slices.Contains([]string{"carbons", "tls", "unavailable"}, f) {
			return fmt.Errorf("connect knows no %q", f)
		}
	}
	label := user + "/" + resource
	o := r.host.login(user+"-"+r.suffix, resource)
	o.StartTLS, o.Patience = slices.Contains(flags, "tls"), r.wait
	c, err := Dial(ctx, o)
	if err != nil {
		return err
	}
	r.clients[label] = c
	r.order = append(r.order, label)
	if want := o.User + "@" + o.Domain + "/" + resource; c.JID != want {
		return fmt.Errorf("bound %s, asked for %s", c.JID, want)
	}
	if slices.Contains(flags, "unavailable") {
		return nil
	}
	if err := c.Available(); err != nil {
		return err
	}
	if !slices.Contains(flags, "carbons") {
		return nil
	}
	answer, err := c.Call("set", "<enable xmlns='urn:xmpp:carbons:2'/>")
	if err != nil {
		return err
	}
	if answer.Attr("type") != "result" {
		return fmt.Errorf("enabling carbons failed: %s", answer)
	}
	return nil
}

// archive is the fixture: romeo sends the user or the room so many messages,
// numbered from 1, and each arrives with its archive id, captured as m1, m2 and
// so on.
func (r *run) archive(ctx context.Context, args []string) error {
	if len(args) < 2 {
		return fmt.Errorf("archive wants a user or a room, and a number")
	}
	n, err := strconv.Atoi(args[1])
	if err != nil {
		return err
	}
	f, err := r.fixture(ctx, args[0])
	if err != nil {
		return err
	}
	_, romeo, err := r.find("romeo")
	if err != nil {
		return err
	}
	spaced := len(args) > 2 && args[2] == "spaced"
	for i := 1; i <= n; i++ {
		k := strconv.Itoa(i)
		attributes := "type='" + f.typ + "' id='msg" + k + "'><body>" + k + "</body>"
		out := "<message to='" + f.archive + "' " + attributes + "</message>"
		r.note("romeo", ">", out)
		if err := romeo.Send(out); err != nil {
			return err
		}
		head := "<message xmlns='" + nsClient + "' from='" + f.from + "' "
		id := "<stanza-id xmlns='" + nsSID + "' by='" + f.archive + "' id='{{m" + k + "}}'"
		for _, label := range f.readers {
			to := f.archive
			if f.typ == "groupchat" {
				to = r.clients[label].JID
			}
			if err := r.expect(label, r.clients[label], head+"to='"+to+"' "+attributes+id+"/></message>"); err != nil {
				return err
			}
		}
		if f.typ == "groupchat" {
			// A room's archive has no to, and may say who it was.
			r.bodies["m"+k] = head + attributes + id + " maybe='yes'/><x xmlns='" + nsMUC + "#user' maybe='yes'>...</x></message>"
		} else {
			r.bodies["m"+k] = head + "to='" + f.archive + "' " + attributes + id + " maybe='yes'/></message>"
		}
		if spaced {
			// A stamp of its own for each: the clock is shared with the server,
			// and a stamp has at least a millisecond's precision.
			for last := time.Now().UnixMilli(); time.Now().UnixMilli() <= last+1; {
				time.Sleep(200 * time.Microsecond)
			}
		}
	}
	return nil
}

// fixture says where the fixture's messages go.
type fixture struct {
	archive string   // bare JID of the owner
	from    string   // romeo, as the owner sees him
	typ     string   // of the messages
	readers []string // labels of those who are sent each
}

func (r *run) fixture(ctx context.Context, name string) (fixture, error) {
	if room := r.room(name); r.inRoom("romeo", room) != "" {
		f := fixture{archive: room, from: r.inRoom("romeo", room), typ: "groupchat"}
		for _, label := range r.order {
			if r.inRoom(label, room) != "" {
				f.readers = append(f.readers, label)
			}
		}
		return f, nil
	}
	label, c, err := r.find(name)
	if err != nil {
		return fixture{}, err
	}
	_, romeo, err := r.find("romeo")
	if err != nil {
		if err := r.connect(ctx, "romeo", "orchard", nil); err != nil {
			return fixture{}, err
		}
		romeo = r.clients["romeo/orchard"]
	}
	return fixture{archive: c.Bare, from: romeo.JID, typ: "chat", readers: []string{label}}, nil
}

// expect takes the next stanza of a client, which must match one of the
// patterns.
func (r *run) expect(label string, c *Client, patterns ...string) error {
	got, err := c.Next()
	if err != nil {
		return fmt.Errorf("%s: waiting for\n%s\n%w", label, patterns[0], err)
	}
	r.note(label, "<", got.String())
	got.remove(xml.Name{Space: "urn:xmpp:occupant-id:0", Local: "occupant-id"})
	var first error
	for _, pattern := range patterns {
		p, err := ParseElement(pattern)
		if err != nil {
			return fmt.Errorf("not a pattern: %w: %s", err, pattern)
		}
		diffs := Match(p, got, r.vars)
		if len(diffs) == 0 {
			return nil
		}
		if first == nil {
			first = mismatch(label, p, got, diffs)
		}
	}
	return first
}

func mismatch(label string, p, got *Element, diffs []string) error {
	return fmt.Errorf("%s got the wrong stanza:\n  %s\nwanted:\n%s\ngot:\n%s", label, strings.Join(diffs, "\n  "), p, got)
}

// maybe takes the stanzas waiting at a client if the first one matches. What
// may or may not arrive has arrived when a barrier returns.
func (r *run) maybe(label string, c *Client, pattern string) error {
	p, err := ParseElement(pattern)
	if err != nil {
		return fmt.Errorf("not a pattern: %w: %s", err, pattern)
	}
	rest, err := r.barrier()
	if err != nil {
		return err
	}
	if mine := rest[label]; len(mine) > 0 {
		if diffs := Match(p, mine[0], r.vars); len(diffs) > 0 {
			return mismatch(label, p, mine[0], diffs)
		}
		r.note(label, "<", mine[0].String())
		rest[label] = mine[1:]
	}
	return unexpected(rest)
}

// nothing checks that no client has been sent anything that the transcript did
// not take.
func (r *run) nothing() error {
	rest, err := r.barrier()
	if err != nil {
		return err
	}
	return unexpected(rest)
}

func unexpected(rest map[string][]*Element) error {
	for label, stanzas := range rest {
		if len(stanzas) > 0 {
			return fmt.Errorf("%s got %d stanzas that nobody expects, the first:\n%s", label, len(stanzas), stanzas[0])
		}
	}
	return nil
}

var captured = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_.-]*$`)

// differ checks that captures have been bound to different values.
func (r *run) differ(names []string) error {
	seen := map[string]string{}
	for _, n := range names {
		val, ok := r.vars[n]
		if !captured.MatchString(n) || !ok {
			return fmt.Errorf("%s is not bound", n)
		}
		if other, ok := seen[val]; ok {
			return fmt.Errorf("%s and %s are both %q", other, n, val)
		}
		seen[val] = n
	}
	return nil
}
