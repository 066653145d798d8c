package integrations

import (
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"mamlog/cmd/mamlog/conformance"
)

// chatOne is one message to someone, in the manner of chat.
func chatOne(to, name string, i int) string {
	return fmt.Sprintf("<message to='%s' type='chat' id='%s-%d'><body>%s %d</body></message>", to, name, i, name, i)
}

// TestFaults: 1,000 messages between two accounts, both ways, and in a room,
// while mamlog, the server and the link between them are killed, stopped, hung
// and cut, twenty times. Whatever was delivered is afterwards in the archive of
// each who sent or got it and in the room's, once, in the order of delivery, and
// under the id that it came with, if it had one.
//
// MAMLOG_SEED replays a run: what happens when depends on it, and on the machine.
func TestFaults(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	if s := os.Getenv("MAMLOG_SEED"); s != "" {
		var err error
		if seed, err = strconv.ParseUint(s, 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	onBoth(t, func(t *testing.T, k kind) {
		t.Logf("MAMLOG_SEED=%d", seed)
		s := ownSite(t, k, siteOptions{proxied: true})
		x := &exchange{t: t, site: s, rng: rand.New(rand.NewPCG(seed, 3)), streams: streams, room: "storm@" + s.RoomsHost}
		x.begin()
		script := slices.Concat(
			slices.Repeat([]fault{killArchive}, 6), slices.Repeat([]fault{stopArchive}, 2), slices.Repeat([]fault{cutLink}, 3),
			slices.Repeat([]fault{hang}, 2), slices.Repeat([]fault{hangLong}, 1), slices.Repeat([]fault{killServer}, 3),
			slices.Repeat([]fault{stopServer}, 1), slices.Repeat([]fault{killBoth}, 2),
		)
		x.rng.Shuffle(len(script), func(i, j int) { script[i], script[j] = script[j], script[i] })
		for i, f := range script {
			x.round(i, f, 1000/len(script)/len(streams)+1)
		}
		x.drained()
		x.check()
	})
}

// fault is what happens to a site while messages are under way.
type fault int

const (
	killArchive fault = iota
	stopArchive
	cutLink
	hang     // for a moment
	hangLong // until the module gives up waiting
	killServer
	stopServer
	killBoth
)

func (f fault) String() string {
	return [...]string{"mamlog killed", "mamlog stopped", "link cut", "mamlog hung", "mamlog hung for long", "server killed", "server stopped", "both killed"}[f]
}

// ofServer tells whether the clients lose their connections.
func (f fault) ofServer() bool { return f == killServer || f == stopServer || f == killBoth }

// exchange is two people who write to each other, and one of them into a room.
type exchange struct {
	t       *testing.T
	site    *site
	rng     *rand.Rand
	streams []stream
	room    string
	people  map[string]*person
	sent    map[string]int // messages of each stream
	twice   string         // a stream that an archive may have twice
	renamed bool           // what mamlog archived is there under mod_mam's ids, which are microseconds
	doing   string
}

// stream is what somebody says to somebody, or to the room: bodies are numbered
// after its name.
type stream struct{ name, from, to string }

var streams = []stream{{"romeo", "romeo", "juliet"}, {"juliet", "juliet", "romeo"}, {"hall", "romeo", ""}}

// person is one of them, over all connections.
type person struct {
	user   string
	client *conformance.Client
	ended  chan struct{} // closed when all that the connection brought is in heard
	news   chan struct{}

	mu    sync.Mutex
	heard []received // of all streams, in the order of arrival
}

func (x *exchange) begin() {
	x.people, x.sent = map[string]*person{}, map[string]int{}
	for _, user := range []string{"juliet", "romeo"} {
		x.must(x.site.Register(x.t.Context(), user))
		x.people[user] = &person{user: user, news: make(chan struct{}, 1)}
	}
	juliet := x.site.login(x.t, "juliet", "builder")
	if err := juliet.NewRoom(x.room, "builder", "muc#roomconfig_persistentroom=1"); err != nil {
		x.t.Fatal(err)
	}
	x.connect()
	juliet.Close()
	if x.site.name == "ejabberd" {
		// It keeps accounts and rooms in memory for some minutes before they are on
		// the disk. They are not what is tested here.
		_, err := x.site.Eval(x.t.Context(), "dumped = rpc:call(Node, mnesia, dump_log, []), [ok = rpc:call(Node, dets, sync, [T]) || T <- rpc:call(Node, dets, all, [])]")
		x.must(err)
	}
}

// connect logs both in and lets them enter the room.
func (x *exchange) connect() {
	x.t.Helper()
	for _, p := range x.people {
		p.client = x.site.login(x.t, p.user, "storm")
		if _, err := p.client.Join(x.room, p.user, conformance.JoinOptions{}); err != nil {
			x.t.Fatal(err)
		}
		p.ended = make(chan struct{})
		go p.listen(x.room)
	}
}

// listen notes what arrives, until the connection ends.
func (p *person) listen(room string) {
	c, ended := p.client, p.ended
	defer close(ended)
	for {
		e, err := c.Next()
		if err != nil {
			return
		}
		if e.Name.Local != "message" || e.Attr("type") == "error" || e.Child("body") == nil {
			continue
		}
		owner := c.Bare
		if e.Attr("type") == "groupchat" {
			owner = room
		}
		id, ids := conformance.StanzaID(e, owner)
		if ids > 1 {
			id = "several ids"
		}
		p.mu.Lock()
		p.heard = append(p.heard, received{id, e.Child("body").Content()})
		p.mu.Unlock()
		select {
		case p.news <- struct{}{}:
		default:
		}
	}
}

// of is what was heard of a stream.
func (p *person) of(stream string) []received {
	p.mu.Lock()
	defer p.mu.Unlock()
	return ofStream(p.heard, stream)
}

func ofStream(all []received, stream string) (some []received) {
	for _, r := range all {
		if strings.HasPrefix(r.body, stream+" ") {
			some = append(some, r)
		}
	}
	return some
}

// until waits for a condition on what someone has heard.
func (x *exchange) until(p *person, ok func() bool) {
	x.t.Helper()
	timer := time.NewTimer(patience)
	defer timer.Stop()
	for !ok() {
		select {
		case <-p.news:
		case <-p.ended:
			x.t.Fatalf("%s: %s's connection ended", x.doing, p.user)
		case <-timer.C:
			p.mu.Lock()
			defer p.mu.Unlock()
			x.t.Fatalf("%s: %s waits in vain for more than %v", x.doing, p.user, p.heard[max(0, len(p.heard)-3):])
		}
	}
}

// say sends the next n messages of each stream, those of a sender one after the
// other, and all senders at once. It stops where the server is gone.
func (x *exchange) say(n int) (said chan struct{}) {
	said = make(chan struct{})
	var wg sync.WaitGroup
	for _, from := range []string{"juliet", "romeo"} {
		first := map[string]int{}
		for _, s := range x.streams {
			if s.from == from {
				first[s.name] = x.sent[s.name]
				x.sent[s.name] += n
			}
		}
		c := x.people[from].client
		wg.Go(func() {
			for i := range n {
				for _, s := range x.streams {
					if s.from != from {
						continue
					}
					text := chatOne(s.to+"@"+x.site.Host, s.name, first[s.name]+i)
					if s.to == "" {
						text = strings.Replace(chatOne(x.room, s.name, first[s.name]+i), "'chat'", "'groupchat'", 1)
					}
					if c.Send(text) != nil {
						return
					}
				}
			}
		})
	}
	go func() {
		wg.Wait()
		close(said)
	}()
	return said
}

// round is some n messages of each stream, with a fault in their midst.
func (x *exchange) round(i int, f fault, n int) {
	x.t.Helper()
	s, juliet := x.site, x.people["juliet"]
	x.doing = fmt.Sprintf("round %d, %s", i, f)
	part := n
	if f.ofServer() {
		part = n / 2 // the rest comes after it
	}
	begin := func() chan struct{} {
		x.t.Helper()
		before, after := len(juliet.of("romeo")), x.rng.IntN(part)
		said := x.say(part)
		x.until(juliet, func() bool { return len(juliet.of("romeo")) >= before+after })
		return said
	}
	said := begin()
	switch f {
	case killArchive, stopArchive, cutLink:
		x.must(map[fault]func() error{killArchive: s.archive.Kill, stopArchive: s.archive.Stop, cutLink: s.link.cut}[f]())
		if x.rng.IntN(2) == 0 {
			x.arrived(said)
		}
		if f == cutLink {
			x.must(s.link.mend())
		} else {
			x.must(s.archive.Start())
		}
	case hang, hangLong:
		x.must(s.archive.Signal(syscall.SIGSTOP))
		if <-said; f == hangLong {
			x.arrived(said)
		}
		x.must(s.archive.Signal(syscall.SIGCONT))
	case killServer, stopServer:
		x.must(map[fault]func() error{killServer: s.Kill, stopServer: s.Stop}[f]())
		x.must(s.Start(x.t.Context()))
		x.reconnect(said)
		said = begin()
	case killBoth:
		x.must(s.archive.Kill())
		x.arrived(said) // so something waits for the archive
		said = begin()
		x.must(s.Kill())
		x.must(s.Start(x.t.Context()))
		x.reconnect(said)
		said = begin()
		x.must(s.archive.Start())
	}
	x.arrived(said)
}

func (x *exchange) must(err error) {
	x.t.Helper()
	if err != nil {
		x.t.Fatalf("%s: %v", x.doing, err)
	}
}

// reconnect follows a server's return. What was on its way is lost, or not.
func (x *exchange) reconnect(said chan struct{}) {
	x.t.Helper()
	for _, p := range x.people {
		<-p.ended
	}
	<-said
	x.connect()
}

// arrived waits until everyone has heard the end of what was said.
func (x *exchange) arrived(said chan struct{}) {
	x.t.Helper()
	<-said
	for _, s := range x.streams {
		last := fmt.Sprintf("%s %d", s.name, x.sent[s.name]-1)
		for _, p := range x.people {
			if s.to == p.user || s.to == "" {
				x.until(p, func() bool {
					have := p.of(s.name)
					return len(have) > 0 && have[len(have)-1].body == last
				})
			}
		}
	}
}

// drained returns when the module has given all that it kept to the archive: a
// message is stamped only behind everything that was delivered before it.
func (x *exchange) drained() {
	x.t.Helper()
	x.doing = "at the end"
	deadline := time.Now().Add(patience)
	for {
		x.arrived(x.say(1))
		stamped := true
		for _, s := range x.streams {
			for _, p := range x.people {
				if s.to == p.user || s.to == "" {
					have := p.of(s.name)
					stamped = stamped && have[len(have)-1].id != ""
				}
			}
		}
		if stamped {
			return
		}
		if time.Now().After(deadline) {
			x.t.Fatal("what the module keeps for the archive does not reach it")
		}
		time.Sleep(50 * time.Millisecond) // until the next look
	}
}

// check holds the archives against what was heard, and returns them: juliet's,
// romeo's and the room's.
func (x *exchange) check() map[string][]received {
	x.t.Helper()
	archives, read := map[string][]received{}, archiveOf
	if x.renamed {
		read = archiveByTime
	}
	for user := range x.people {
		reader := x.site.login(x.t, user, "reader")
		archives[user] = read(x.t, reader, "")
		if user == "juliet" {
			archives["hall"] = read(x.t, reader, x.room)
		}
		if x.twice != "" {
			archives[user] = firstOf(archives[user], x.twice)
		}
		reader.Close()
	}
	for _, s := range x.streams {
		for _, p := range x.people {
			if s.to != p.user && s.to != "" {
				continue
			}
			heard := p.of(s.name)
			if s.to == "" {
				checkKept(x.t, x.doing+": the room's archive, as "+p.user+" heard it", heard, ofStream(archives["hall"], s.name), !x.renamed)
			} else {
				checkKept(x.t, x.doing+": "+s.to+"'s archive", heard, ofStream(archives[s.to], s.name), !x.renamed)
				checkKept(x.t, x.doing+": "+s.from+"'s archive", heard, ofStream(archives[s.from], s.name), false)
			}
			withID := len(slices.DeleteFunc(slices.Clone(heard), func(r received) bool { return r.id == "" }))
			x.t.Logf("%s: %s to %s: %d sent, %d delivered, %d of them with an id", x.doing, s.name, p.user, x.sent[s.name], len(heard), withID)
		}
	}
	return archives
}

// archiveByTime is archiveOf for ejabberd's mod_mam. Messages of one microsecond have
// the same id there, and the page after an id leaves out the others that have it.
// So every page begins with the last microsecond of the one before.
func archiveByTime(t *testing.T, c *conformance.Client, owner string) (got []received) {
	t.Helper()
	words := "max=50"
	if owner != "" {
		words += " to=" + owner
	}
	for after := ""; ; {
		p, err := c.Ask(words + after)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range p.Messages {
			got = append(got, received{m.ID, m.Body()})
		}
		if p.Complete() {
			return got
		}
		n := len(p.Messages)
		if n == 0 || p.Messages[0].ID == p.Messages[n-1].ID {
			t.Fatalf("a page of %d messages leads no further, after %d messages", n, len(got))
		}
		last := p.Messages[n-1].ID
		for got[len(got)-1].id == last {
			got = got[:len(got)-1]
		}
		at, err := strconv.ParseInt(last, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		after = fmt.Sprint(" after=", at-1)
	}
}

// firstOf leaves out what of a stream is there a second time.
func firstOf(all []received, stream string) (some []received) {
	seen := map[string]bool{}
	for _, r := range all {
		if !seen[r.body] || !strings.HasPrefix(r.body, stream+" ") {
			some = append(some, r)
		}
		seen[r.body] = true
	}
	return some
}

// isOurs tells mamlog's archive ids from those of mod_mam.
func isOurs(id string) bool { return len(id) == 26 && strings.ToUpper(id) == id }

// checkKept looks for all that was heard in an archive: there once, in that
// order, and under the same id where mamlog gave it one and the archive is the
// hearer's. An archive may have more: what was archived and never arrived.
func checkKept(t *testing.T, what string, heard, archive []received, sameID bool) {
	t.Helper()
	place, times := map[string]int{}, map[string]int{}
	for i, r := range archive {
		place[r.body] = i
		if times[r.body]++; times[r.body] == 2 {
			t.Errorf("%s: %q is there twice", what, r.body)
		}
	}
	last, before := -1, ""
	for _, r := range heard {
		if t.Failed() {
			return // one is enough to tell
		}
		i, ok := place[r.body]
		switch {
		case !ok:
			t.Errorf("%s: %q was delivered (id %q) and is missing", what, r.body, r.id)
			continue
		case i < last:
			t.Errorf("%s: %q was delivered after %q and is archived before it", what, r.body, before)
		case sameID && isOurs(r.id) && archive[i].id != r.id:
			t.Errorf("%s: %q came as %s and is archived as %s", what, r.body, r.id, archive[i].id)
		}
		last, before = i, r.body
	}
}
