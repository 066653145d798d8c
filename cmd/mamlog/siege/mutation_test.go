package siege

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"mamlog/cmd/mamlog/conformance"
)

// seeds are what is mutated: one of each thing that a client says.
var seeds = []string{
	"<message xmlns='jabber:client' to='mallory@test.example' type='chat' id='m1'><body>hello</body><origin-id xmlns='urn:xmpp:sid:0' id='o'/></message>",
	"<message xmlns='jabber:client' to='trudy@test.example' type='chat' xml:lang='en'><body xml:lang='de'>hallo</body><subject>s</subject><thread>t</thread><request xmlns='urn:xmpp:receipts'/></message>",
	"<message xmlns='jabber:client' to='mallory@test.example' type='error' id='m1'><error type='cancel'><gone xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error></message>",
	"<message xmlns='jabber:client' to='trudy@test.example'><stanza-id xmlns='urn:xmpp:sid:0' by='trudy@test.example' id='x'/><no-store xmlns='urn:xmpp:hints'/><body>x</body></message>",
	"<iq xmlns='jabber:client' type='set' id='q1'><query xmlns='urn:xmpp:mam:2' queryid='f'><x xmlns='jabber:x:data' type='submit'><field var='FORM_TYPE'><value>urn:xmpp:mam:2</value></field><field var='with'><value>trudy@test.example</value></field><field var='start'><value>2026-01-01T00:00:00Z</value></field></x><set xmlns='http://jabber.org/protocol/rsm'><max>10</max><before/></set></query></iq>",
	"<iq xmlns='jabber:client' type='set' id='q2'><query xmlns='urn:xmpp:mam:2'><x xmlns='jabber:x:data' type='submit'><field var='FORM_TYPE'><value>urn:xmpp:mam:2</value></field><field var='ids'><value>01ARZ3NDEKTSV4RRFFQ69G5FAV</value></field></x><flip-page/></query></iq>",
	"<iq xmlns='jabber:client' type='get' id='q3'><metadata xmlns='urn:xmpp:mam:2'/></iq>",
	"<iq xmlns='jabber:client' type='get' id='q4' to='juliet@test.example'><prefs xmlns='urn:xmpp:mam:2'/></iq>",
	"<iq xmlns='jabber:client' type='set' id='q5'><prefs xmlns='urn:xmpp:mam:2' default='roster'><always><jid>a@b.example</jid></always><never><jid>c@d.example/e</jid></never></prefs></iq>",
	"<iq xmlns='jabber:client' type='set' id='q6'><query xmlns='jabber:iq:roster'><item jid='trudy@test.example' name='T'><group>g</group></item></query></iq>",
	"<iq xmlns='jabber:client' type='get' id='q7' to='test.example'><query xmlns='http://jabber.org/protocol/disco#info' node='n'/></iq>",
	"<iq xmlns='jabber:client' type='set' id='q8'><enable xmlns='urn:xmpp:carbons:2'/></iq>",
	"<iq xmlns='jabber:client' type='result' id='q9' to='trudy@test.example/x'/>",
	"<presence xmlns='jabber:client'><priority>5</priority><show>away</show></presence>",
	"<presence xmlns='jabber:client' type='subscribe' to='trudy@test.example'/>",
}

// linkSeeds are those of a link.
var linkSeeds = []string{
	"<iq type='get' id='h' from='linked.example' to='archive.linked.example'>" + hello("accounts") + "</iq>",
	"<iq type='set' id='b' from='linked.example' to='archive.linked.example'>" + appendOf("in", "mallory@linked.example", "hi", "contact='true' stamp='2026-01-01T00:00:00Z'") + "</iq>",
	"<iq type='set' id='i' from='linked.example' to='archive.linked.example'>" + appendOf("out", "trudy@linked.example", "hi", "import='true' stamp='2026-11-27T00:00:00Z'") + "</iq>",
	"<iq type='set' id='r' from='linked.example' to='archive.linked.example'><batch xmlns='" + nsAttach + "'><append dir='out' owner='mallory@linked.example' peer='trudy@linked.example' key='1'><message xmlns='jabber:client' type='chat'><body>x</body></message></append><append dir='in' owner='trudy@linked.example' peer='mallory@linked.example/x' key='2' ref='1'/></batch></iq>",
	"<iq type='get' id='q' from='linked.example' to='archive.linked.example'>" + asked("mallory@linked.example", "mallory@linked.example/x", "set", "<query xmlns='"+nsMAM+"'/>", "real-jids='all'") + "</iq>",
	"<iq type='set' id='d' from='linked.example' to='archive.linked.example'><delete xmlns='" + nsAttach + "' owner='trudy@linked.example'/></iq>",
	"<iq type='set' id='g' from='linked.example' to='archive.linked.example'>" + delegated("urn:xmpp:delegation:2", "mallory@linked.example/x", "mallory@linked.example", "get", "<prefs xmlns='"+nsMAM+"'/>") + "</iq>",
	"<message from='linked.example' to='archive.linked.example'><delegation xmlns='urn:xmpp:delegation:2'><delegated namespace='urn:xmpp:mam:2'/></delegation></message>",
	"<iq type='get' id='p' from='eve@evil.example/x' to='archive.linked.example'><ping xmlns='urn:xmpp:ping'/></iq>",
}

// words are put in place of values.
var words = append([]string{
	"", "-1", "0", "4294967296", "99999999999999999999", "0x10", "1e9", "true", "NaN", "2026-02-30T25:61:61Z", "-9999-01-01T00:00:00Z", "9999999-01-01T00:00:00Z",
	"@", "/", "a@b@c", "@test.example", "test.example/", "mallory@test.example/" + strings.Repeat("r", 1024), strings.Repeat("a", 4096), "xn--a", "[::1]", "mallory@TEST.example",
	"01ARZ3NDEKTSV4RRFFQ69G5FAV", "7ZZZZZZZZZZZZZZZZZZZZZZZZZ", "8ZZZZZZZZZZZZZZZZZZZZZZZZZ", "get", "set", "error", "groupchat", "headline", "submit", "cancel", "room", "in", "out",
	nsMAM, nsAttach, "jabber:client", "jabber:server", "urn:xmpp:forward:0", "archive.linked.example", "linked.example", "test.example", "mallory@linked.example", "ids", "before-id", "with",
}, nasty...)

// mutate changes a stanza. With whole it stays well-formed most of the time: names,
// values and elements are replaced, repeated and moved; otherwise any byte may go.
func mutate(r *rand.Rand, s string, whole bool) string {
	for range 1 + r.IntN(4) {
		if s == "" {
			return s
		}
		if !whole {
			i := r.IntN(len(s))
			j := min(len(s), i+r.IntN(16))
			switch r.IntN(5) {
			case 0:
				s = s[:i] + string([]byte{byte(r.IntN(256))}) + s[min(len(s), i+1):]
			case 1:
				s = s[:i] + s[j:]
			case 2:
				s = s[:j] + s[i:]
			case 3:
				s = s[:i] + words[r.IntN(len(words))] + s[i:]
			case 4:
				s = s[:i]
			}
			continue
		}
		switch r.IntN(4) {
		case 0, 1: // another value
			at := positions(s, "='")
			if len(at) == 0 {
				return s
			}
			i := at[r.IntN(len(at))] + 2
			j := strings.IndexByte(s[i:], '\'')
			if j < 0 {
				return s
			}
			s = s[:i] + escaped(words[r.IntN(len(words))]) + s[i+j:]
		case 2: // another text
			at := positions(s, ">")
			i := at[r.IntN(len(at))] + 1
			j := strings.IndexByte(s[i:], '<')
			if j < 0 {
				continue // behind the stanza
			}
			s = s[:i] + escaped(words[r.IntN(len(words))]) + s[i+j:]
		case 3: // an element from somewhere else, or one more of its kind
			donor := seeds[r.IntN(len(seeds))]
			from := positions(donor, "<")
			i := from[r.IntN(len(from))]
			piece := element(donor[i:])
			at := positions(s, "</")
			if piece == "" || len(at) == 0 {
				continue
			}
			to := at[r.IntN(len(at))]
			s = s[:to] + strings.Repeat(piece, 1+r.IntN(3)) + s[to:]
		}
	}
	return s
}

func positions(s, what string) (at []int) {
	for i := 0; ; {
		j := strings.Index(s[i:], what)
		if j < 0 {
			return at
		}
		at = append(at, i+j)
		i += j + len(what)
	}
}

// element is the one that s begins with; "" if it begins with none.
func element(s string) string {
	depth := 0
	for i := 0; i < len(s); {
		j := strings.IndexByte(s[i:], '>')
		if s[i] != '<' {
			j = strings.IndexByte(s[i:], '<')
			if j < 0 {
				return ""
			}
			i += j
			continue
		}
		if j < 0 {
			return ""
		}
		switch {
		case s[i+1] == '/':
			depth--
		case s[i+j-1] != '/':
			depth++
		}
		if i += j + 1; depth <= 0 {
			if depth < 0 {
				return ""
			}
			return s[:i]
		}
	}
	return ""
}

// TestMutations sends stanzas and streams that chance has changed, over TCP, over
// WebSockets and over a link, to one server all the time. It does not crash, keeps
// neither goroutines nor memory, and two others have their conversation meanwhile,
// of which their archives have every word.
func TestMutations(t *testing.T) {
	total := 2000
	if conformance.Nightly() {
		total = 100000
	}
	t.Setenv("GOGC", "20") // so that the heap is near what is in use
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	s, web := serveWeb(t, "test.example, linked.example", fmt.Sprintf(`cache_size: 8MiB
limits: {failed_logins_per_minute: 1000000}
links: [{server: %q, domain: archive.linked.example, secret: s, hosts: [linked.example], delegation: true}]
`, l.Addr()))
	s.users("juliet", "romeo", "mallory", "trudy")
	talk := converse(t, s)
	rng := seeded(t)

	var sent, connections, userOf atomic.Int64
	attack := func(n int) {
		var wg sync.WaitGroup
		start := func(share int, work func(r *rand.Rand, n int)) {
			r := rand.New(rand.NewPCG(rng.Uint64(), rng.Uint64()))
			wg.Go(func() { work(r, n*share/100) })
		}
		user := func() string { return []string{"mallory", "trudy"}[userOf.Add(1)%2] }
		start(45, func(r *rand.Rand, n int) {
			storm(t, func() (pipe, error) { return s.tcp(user()) }, seeds, pingHost, r, n, &sent, &connections)
		})
		start(25, func(r *rand.Rand, n int) {
			storm(t, func() (pipe, error) { return dialWeb(web, user()) }, seeds, pingHost, r, n, &sent, &connections)
		})
		start(5, func(r *rand.Rand, n int) {
			strangers(t, func() (pipe, error) { return s.tcp("") }, r, n, &sent, &connections)
		})
		start(5, func(r *rand.Rand, n int) {
			strangers(t, func() (pipe, error) { return dialWeb(web, "") }, r, n, &sent, &connections)
		})
		start(20, func(r *rand.Rand, n int) {
			storm(t, func() (pipe, error) { return acceptLink(l) }, linkSeeds, pingComponent, r, n, &sent, &connections)
		})
		wg.Wait()
	}
	attack(total / 5) // caches fill up, once
	before := s.settled(0)
	attack(total - total/5)
	after := s.settled(before.goroutines + 8)
	talk.end()
	if after.goroutines > before.goroutines+8 {
		t.Errorf("%d goroutines, before %d", after.goroutines, before.goroutines)
	}
	if limit := before.heap*3/2 + 16<<20; after.heap > limit {
		t.Errorf("%d MiB of heap, before %d", after.heap>>20, before.heap>>20)
	}
	took := int(sum(s.metrics(), "mamlog_c2s_stanzas_received_total")+sum(s.metrics(), "mamlog_link_requests_total")) - talk.n
	if took < total/4 {
		t.Errorf("only %d stanzas of %d got as far as to be handled: this test tests the parser", took, total)
	}
	conformance.Figures(t, "%d mutated stanzas over %d connections; goroutines %d, before %d; heap %d MiB, before %d; %d stanzas and pings were handled; %d messages of a conversation meanwhile, all archived",
		sent.Load(), connections.Load(), after.goroutines, before.goroutines, after.heap>>20, before.heap>>20, took, talk.n)
}

// use is what a process holds.
type use struct{ goroutines, heap, resident int }

// settled waits until there are at most so many goroutines, 0 for as few as stay,
// and takes the lowest of some looks at the heap.
func (s *server) settled(goroutines int) (least use) {
	s.t.Helper()
	for i, end := 0, time.Now().Add(patience); i < 15 || goroutines > 0 && least.goroutines > goroutines && time.Now().Before(end); i++ {
		m := s.metrics()
		u := use{int(m["go_goroutines"]), int(m["go_memstats_heap_alloc_bytes"]), int(m["process_resident_memory_bytes"])}
		if i == 0 {
			least = u
		}
		least = use{min(least.goroutines, u.goroutines), min(least.heap, u.heap), min(least.resident, u.resident)}
		time.Sleep(100 * time.Millisecond)
	}
	return least
}

// conversation is one between two users who have nothing to do with the rest.
type conversation struct {
	t             *testing.T
	s             *server
	juliet, romeo *conformance.Client
	stop          chan struct{}
	done          chan struct{}
	n             int
}

// converse lets romeo say something every now and then, which juliet must get.
func converse(t *testing.T, s *server) *conversation {
	t.Helper()
	c := &conversation{t: t, s: s, juliet: s.dial("juliet", "balcony"), romeo: s.dial("romeo", "garden"), stop: make(chan struct{}), done: make(chan struct{})}
	go func() {
		defer close(c.done)
		for ; ; c.n++ {
			select {
			case <-c.stop:
				return
			case <-time.After(20 * time.Millisecond):
			}
			body := fmt.Sprintf("word %d", c.n)
			if err := c.romeo.Send("<message to='juliet@test.example' type='chat'><body>" + body + "</body></message>"); err != nil {
				t.Errorf("%s: %v", body, err)
				return
			}
			e, err := c.juliet.Next()
			for err == nil && e.Attr("from") != c.romeo.JID {
				e, err = c.juliet.Next() // by the attackers, who may write to her
			}
			if err != nil || e.Child("body").Content() != body {
				t.Errorf("juliet waits for %q, and has %s, %v", body, e, err)
				return
			}
		}
	}()
	return c
}

// end ends the conversation, and looks for all of it in both archives.
func (c *conversation) end() {
	c.t.Helper()
	close(c.stop)
	<-c.done
	for user, with := range map[string]string{"juliet": "romeo@test.example", "romeo": "juliet@test.example"} {
		reader, err := conformance.Dial(c.t.Context(), conformance.DialOptions{Addr: c.s.Addr, Domain: "test.example", User: user, Password: conformance.Password, Resource: "reader"})
		if err != nil {
			c.t.Fatal(err)
		}
		archive, err := reader.Walk("with="+with, 50)
		reader.Drop()
		if err != nil {
			c.t.Fatal(err)
		}
		if len(archive) != c.n {
			c.t.Errorf("%s has %d messages of %d", user, len(archive), c.n)
			continue
		}
		for i, m := range archive {
			if m.Body() != fmt.Sprintf("word %d", i) {
				c.t.Errorf("%s: message %d is %q", user, i, m.Body())
			}
		}
	}
}

// victim is a connection to the server, with what has come back.
type victim struct {
	pipe
	ended chan struct{}
	news  chan struct{}

	mu   sync.Mutex
	last string // what came, from the last id that was waited for on
	n    int
}

// watch reads all that comes, until the stream has ended.
func watch(p pipe) *victim {
	v := &victim{pipe: p, ended: make(chan struct{}), news: make(chan struct{}, 1)}
	go func() {
		defer close(v.ended)
		p.read(func(b []byte) {
			v.mu.Lock()
			v.last += string(b)
			v.mu.Unlock()
			select {
			case v.news <- struct{}{}:
			default:
			}
		})
	}()
	return v
}

// glance is how long an answer is waited for that may never come, since the stream
// may be in the middle of an element that nobody will close.
const glance = 50 * time.Millisecond

// alive sends an iq and waits so long for its answer; false where there comes none.
func (v *victim) alive(ping string, wait time.Duration) bool {
	v.n++
	id := fmt.Sprintf("alive-%d", v.n)
	if v.send(fmt.Sprintf(ping, id)) != nil {
		return false
	}
	late := time.NewTimer(wait)
	defer late.Stop()
	for {
		v.mu.Lock()
		_, rest, found := strings.Cut(v.last, id+"'")
		if found || len(v.last) > 1<<20 {
			v.last = rest
		}
		v.mu.Unlock()
		if found {
			return true
		}
		select {
		case <-v.news:
		case <-v.ended:
			return false
		case <-late.C:
			return false
		}
	}
}

func (v *victim) hangUp() {
	v.close()
	<-v.ended
}

const (
	pingHost      = "<iq xmlns='jabber:client' type='get' id='%s' to='test.example'><ping xmlns='urn:xmpp:ping'/></iq>"
	pingComponent = "<iq type='get' id='%s' from='linked.example' to='archive.linked.example'><ping xmlns='urn:xmpp:ping'/></iq>"
)

// storm sends n mutations, some at once, on a new connection whenever one has ended.
func storm(t *testing.T, dial func() (pipe, error), from []string, ping string, r *rand.Rand, n int, sent, connections *atomic.Int64) {
	var v *victim
	for n > 0 {
		if v == nil {
			p, err := dial()
			if err != nil {
				t.Errorf("the server is gone: %v", err)
				return
			}
			connections.Add(1)
			v = watch(p)
		}
		whole := r.IntN(4) > 0
		some, wait := 1, glance
		if whole {
			some, wait = 1+r.IntN(min(n, 8)), patience
		}
		var err error
		for range some {
			if err = v.send(mutate(r, from[r.IntN(len(from))], whole)); err != nil {
				break
			}
		}
		n -= some
		sent.Add(int64(some))
		if err == nil && v.alive(ping, wait) {
			continue
		}
		if whole {
			select {
			case <-v.ended:
			case <-time.After(patience):
				t.Error("a stream goes on after well-formed stanzas, and a ping isn't answered")
			}
		}
		v.hangUp()
		v = nil
	}
	if v != nil {
		v.hangUp()
	}
}

// strangers mutate the stream itself, from its header on.
func strangers(t *testing.T, dial func() (pipe, error), r *rand.Rand, n int, sent, connections *atomic.Int64) {
	for range n {
		p, err := dial()
		if err != nil {
			t.Errorf("the server is gone: %v", err)
			return
		}
		connections.Add(1)
		sent.Add(1)
		v := watch(p)
		header := streamHeader
		if _, web := p.(webPipe); web {
			header = framedHeader
		}
		for _, part := range []string{header, auth("mallory"), header, bind, seeds[r.IntN(len(seeds))]} {
			if r.IntN(3) == 0 {
				part = mutate(r, part, r.IntN(2) == 0)
			}
			if v.send(part) != nil {
				break
			}
		}
		v.alive(pingHost, glance)
		v.hangUp()
	}
}

// linkPipe is the server's end of a link.
type linkPipe struct {
	*conformance.Client
	net.Conn
}

func (p linkPipe) send(s string) error { return p.Client.Send(s) }
func (p linkPipe) close()              { p.Conn.Close() }
func (p linkPipe) read(each func([]byte)) {
	for {
		e, err := p.Client.Next()
		if err != nil {
			return
		}
		each([]byte(e.Attr("id") + "'"))
	}
}

// acceptLink waits for mamlog to connect, which it does whenever it has ended a
// stream, and passes over those of its attempts that it gave up while nobody was
// here to accept them.
func acceptLink(l net.Listener) (pipe, error) {
	l.(*net.TCPListener).SetDeadline(time.Now().Add(patience))
	var given error
	for {
		conn, err := l.Accept()
		if err != nil {
			return nil, errors.Join(err, given)
		}
		link, err := conformance.AcceptComponent(conn)
		if err != nil {
			conn.Close()
			given = err
			continue
		}
		return linkPipe{link, conn}, link.Send(linkSeeds[0]) // a proper hello
	}
}
