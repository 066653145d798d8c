package siege

import (
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"mamlog/cmd/mamlog/conformance"
)

// realm is one server with everybody who could ask it something: an embedded host,
// and two links, of which the first is for a host with accounts and one with rooms,
// and the second, with delegation, for another one.
type realm struct {
	*server
	linked, far *conformance.Client
}

func newRealm(t *testing.T, extra string) *realm {
	t.Helper()
	var listeners [2]net.Listener
	for i := range listeners {
		var err error
		if listeners[i], err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { listeners[i].Close() })
	}
	client := freeAddr(t)
	s, err := conformance.NewArchive(t.TempDir(), fmt.Sprintf(`hosts: [test.example, linked.example, rooms.linked.example, silent.example, far.example]
c2s: {listen: %q, allow_plaintext: true}
links:
  - {server: %q, domain: archive.linked.example, secret: s, hosts: [linked.example, rooms.linked.example, silent.example]}
  - {server: %q, domain: archive.far.example, secret: s, hosts: [far.example], delegation: true}
%s`, client, listeners[0].Addr(), listeners[1].Addr(), extra))
	if err != nil {
		t.Fatal(err)
	}
	r := &realm{server: begin(t, s)}
	s.Addr = client
	for i, to := range []**conformance.Client{&r.linked, &r.far} {
		conn, err := listeners[i].Accept()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		if *to, err = conformance.AcceptComponent(conn); err != nil {
			t.Fatal(err)
		}
	}
	r.users("juliet", "romeo")
	r.hello(r.linked, "linked.example", "accounts")
	r.hello(r.linked, "rooms.linked.example", "rooms")
	r.hello(r.far, "far.example", "accounts")
	for host, kind := range map[string]string{"linked.example": "in", "rooms.linked.example": "room"} {
		e := r.request(r.linked, host, "set", appendOf(kind, "alice@"+host, "one"))
		if words := strings.Fields(e.Child("archived").Content()); len(words) != 1 || len(words[0]) != 26 {
			t.Fatalf("the first message: %s", e)
		}
	}
	return r
}

// request sends an iq over a link, from whomever, and returns the answer.
func (r *realm) request(link *conformance.Client, from, typ, payload string) *conformance.Element {
	r.t.Helper()
	e, err := link.CallFrom(from, link.JID, typ, payload)
	if err != nil {
		r.t.Fatalf("from %q, %s: %v", from, payload, err)
	}
	return e
}

func (r *realm) hello(link *conformance.Client, host, serves string) {
	r.t.Helper()
	if e := r.request(link, host, "get", hello(serves)); e.Child("welcome") == nil {
		r.t.Fatalf("hello of %s: %s", host, e)
	}
}

func hello(serves string) string {
	return "<hello xmlns='" + nsAttach + "' versions='1' serves='" + serves + "'/>"
}

func appendOf(dir, owner, body string, attrs ...string) string {
	peer := "bob@elsewhere.example/x"
	if dir == "room" {
		peer = owner + "/bob"
	}
	return "<batch xmlns='" + nsAttach + "'><append dir='" + dir + "' owner='" + owner + "' peer='" + peer + "' key='" + body + dir + owner + "' " +
		strings.Join(attrs, " ") + "><message xmlns='jabber:client' type='" + map[bool]string{true: "groupchat", false: "chat"}[dir == "room"] +
		"' from='" + peer + "' to='" + owner + "'><body>" + body + "</body></message></append></batch>"
}

// asked wraps what a client asks for a link.
func asked(owner, asker, typ, payload string, attrs ...string) string {
	return "<query xmlns='" + nsAttach + "' owner='" + owner + "' asker='" + asker + "' " + strings.Join(attrs, " ") +
		"><iq xmlns='jabber:client' type='" + typ + "' id='w'>" + payload + "</iq></query>"
}

func delegated(space, from, to, typ, payload string) string {
	return "<delegation xmlns='" + space + "'><forwarded xmlns='urn:xmpp:forward:0'><iq xmlns='jabber:client' type='" + typ +
		"' id='d' from='" + from + "' to='" + to + "'>" + payload + "</iq></forwarded></delegation>"
}

// request is something that can be asked for. What stands in capitals is filled in:
// JIDs, a key and a default that were not used before, and a stamp.
type request struct{ what, typ, payload string }

// toArchive are the requests that a client sends to an archive.
var toArchive = []request{
	{"query", "set", "<query xmlns='" + nsMAM + "'/>"},
	{"form", "get", "<query xmlns='" + nsMAM + "'/>"},
	{"metadata", "get", "<metadata xmlns='" + nsMAM + "'/>"},
	{"prefs get", "get", "<prefs xmlns='" + nsMAM + "'/>"},
	{"prefs set", "set", "<prefs xmlns='" + nsMAM + "' default='DEFAULT'/>"},
}

// toComponent are those that a server's module sends, for a host with accounts.
var toComponent = []request{
	{"hello", "get", hello("accounts")},
	{"batch in", "set", appendOf("in", "OWNER", "KEY")},
	{"batch out", "set", appendOf("out", "OWNER", "KEY")},
	{"batch room", "set", appendOf("room", "OWNER", "KEY")},
	{"import", "set", appendOf("in", "OWNER", "import KEY", "import='true' stamp='STAMP'")},
	{"delete", "set", "<delete xmlns='" + nsAttach + "' owner='OWNER'/>"},
	{"delegation", "set", delegated("urn:xmpp:delegation:2", "ASKER", "OWNER", "set", "<query xmlns='"+nsMAM+"'/>")},
	{"delegation 1", "set", delegated("urn:xmpp:delegation:1", "ASKER", "OWNER", "set", "<prefs xmlns='"+nsMAM+"' default='DEFAULT'/>")},
	{"unknown", "set", "<nonsense xmlns='" + nsAttach + "'/>"},
}

// plain are those that concern no archive.
var plain = []request{
	{"disco", "get", "<query xmlns='http://jabber.org/protocol/disco#info'/>"},
	{"items", "get", "<query xmlns='http://jabber.org/protocol/disco#items'/>"},
	{"ping", "get", "<ping xmlns='urn:xmpp:ping'/>"},
	{"roster", "get", "<query xmlns='jabber:iq:roster'/>"},
}

// everything is asked by everybody. Those that are wrapped for a link begin with
// "for a client".
func everything() (all []request) {
	all = append(append(append(all, toArchive...), toComponent...), plain...)
	for _, r := range toArchive {
		all = append(all, request{"for a client: " + r.what, "get", asked("OWNER", "ASKER", r.typ, r.payload)})
	}
	return all
}

// asker is somebody who asks for the archive of owner.
type asker struct {
	who, owner, asker string
	ask               func(typ, payload string) string // returns the condition
	want              func(what string) string
}

// TestWhoMayAskWhat tries everything that can be asked with everybody who could:
// each gets exactly the answer that is due, and whoever is refused leaves every log
// as it was.
func TestWhoMayAskWhat(t *testing.T) {
	r := newRealm(t, "")
	pairs, refused, prefs, erasures := 0, 0, 0, 0
	stamp := time.Now().Add(-time.Hour).UTC().Format(time.RFC3339)
	askers := r.askers()
	position := r.position()
	for _, a := range askers {
		t.Run(a.who, func(t *testing.T) {
			for _, q := range everything() {
				if strings.Contains(q.payload, "DEFAULT") {
					prefs++
				}
				payload := strings.NewReplacer("OWNER", a.owner, "ASKER", a.asker, "KEY", fmt.Sprint(pairs),
					"DEFAULT", []string{"never", "always"}[prefs%2], "STAMP", stamp).Replace(q.payload)
				got := a.ask(q.typ, payload)
				want := a.want(q.what)
				if got != want {
					t.Errorf("%s asks %s: %s, want %s", a.who, q.what, got, want)
				}
				pairs++
				if q.what == "delete" && got == "result" {
					erasures++ // behind the scenes, with events of their own
					r.awaitErasures(erasures)
				}
				now := r.position()
				changed := now - position
				position = now
				if taken := want == "result" || want == "archived"; taken {
					if changes := q.what == "prefs set" || q.what == "for a client: prefs set" || strings.HasPrefix(q.what, "batch") || q.what == "delete"; changes && changed == 0 {
						t.Errorf("%s may %s, and nothing came of it", a.who, q.what)
					}
					continue
				}
				if refused++; changed != 0 {
					t.Errorf("%s may not %s, and it made %d events", a.who, q.what, changed)
				}
			}
		})
	}
	t.Run("another user of the machine at the admin socket", r.anotherUID)
	conformance.Figures(t, "%d pairs of who and what, %d of them refused without a trace", pairs, refused)
}

// classes of requests, to say what is due.
func isArchive(what string) bool {
	for _, r := range toArchive {
		if r.what == what {
			return true
		}
	}
	return false
}

func isComponent(what string) bool {
	for _, r := range toComponent {
		if r.what == what {
			return true
		}
	}
	return strings.HasPrefix(what, "for a client")
}

func (r *realm) askers() []asker {
	t := r.t
	juliet, other, romeo := r.dial("juliet", "a"), r.dial("juliet", "b"), r.dial("romeo", "x")
	client := func(c *conformance.Client, to string) func(string, string) string {
		return func(typ, payload string) string {
			e, err := c.CallTo(to, typ, payload)
			for err != nil && e == nil && strings.Contains(err.Error(), "message") {
				e, err = c.Next() // results of a query come first
			}
			if err != nil {
				t.Fatal(err)
			}
			return condition(e)
		}
	}
	const own = "juliet@test.example"
	// Over a link; of what is asked for a client, the answer for that counts.
	over := func(link *conformance.Client, from string) func(string, string) string {
		return func(typ, payload string) string {
			e := r.request(link, from, typ, payload)
			if page := e.Child("page"); page != nil {
				return inner(t, page.Content())
			}
			if d := e.Child("delegation", "forwarded", "iq"); d != nil {
				return condition(d)
			}
			if w := e.Child("archived"); w != nil {
				if word := w.Content(); len(word) != 26 {
					return word
				}
				return "archived"
			}
			return condition(e)
		}
	}
	owner := func(what string) string {
		if isArchive(what) || what == "disco" || what == "items" || what == "ping" || what == "roster" {
			return "result"
		}
		return "cancel/service-unavailable"
	}
	somebody := func(what string) string {
		if isArchive(what) {
			return "auth/forbidden"
		}
		return "cancel/service-unavailable"
	}
	// To its domain: what the host itself answers, and nothing of an archive.
	domain := func(what string) string {
		if what == "disco" || what == "items" || what == "ping" {
			return "result"
		}
		return "cancel/service-unavailable"
	}
	// To the component, by whoever isn't one of the link's hosts.
	stranger := func(what string) string {
		switch {
		case what == "disco", what == "items", what == "ping":
			return "result"
		case isArchive(what), isComponent(what):
			return "auth/forbidden"
		}
		return "cancel/service-unavailable"
	}
	// By a host of the link, for the archive of somebody of another host.
	elsewhere := func(what string) string {
		switch {
		case what == "hello", what == "disco", what == "items", what == "ping":
			return "result"
		case what == "batch room":
			return "!bad-request" // it has no rooms at all
		case strings.HasPrefix(what, "batch"), what == "import":
			return "!forbidden"
		case what == "delete", strings.HasPrefix(what, "for a client"):
			return "auth/forbidden"
		case what == "unknown":
			return "cancel/feature-not-implemented"
		}
		return "cancel/service-unavailable" // also a client's request that is not wrapped
	}
	// By a host of the link for its own account.
	module := func(what string) string {
		switch {
		case strings.HasPrefix(what, "for a client"), what == "delete":
			return "result"
		case what == "import":
			return "!conflict" // behind what is not imported
		case what == "batch in", what == "batch out":
			return "archived"
		}
		return elsewhere(what)
	}
	// By that host for somebody who doesn't own the archive.
	nosy := func(what string) string {
		if strings.HasPrefix(what, "for a client") {
			return "auth/forbidden"
		}
		return module(what)
	}
	silent := func(what string) string {
		switch {
		case strings.HasPrefix(what, "for a client"), strings.HasPrefix(what, "batch"), what == "import", what == "delete":
			return "wait/unexpected-request"
		case what == "hello":
			return "cancel/feature-not-implemented" // see below
		}
		return elsewhere(what)
	}
	withoutHello := func(ask func(string, string) string) func(string, string) string {
		return func(typ, payload string) string {
			return ask(typ, strings.Replace(payload, "versions='1'", "versions='99'", 1)) // it must stay a stranger
		}
	}
	occupant := func(what string) string {
		switch {
		case what == "for a client: prefs get", what == "for a client: prefs set":
			return "cancel/feature-not-implemented"
		case strings.HasPrefix(what, "for a client"):
			return "result"
		case what == "batch room", what == "batch in", what == "batch out", what == "import":
			return map[bool]string{true: "archived", false: "!bad-request"}[what == "batch room"]
		}
		return module(what)
	}
	asRoom := func(ask func(string, string) string, realJIDs string) func(string, string) string {
		return func(typ, payload string) string {
			payload = strings.Replace(payload, "serves='accounts'", "serves='rooms'", 1)
			return ask(typ, strings.Replace(payload, " asker=", " real-jids='"+realJIDs+"' asker=", 1))
		}
	}
	delegating := func(mine bool) func(string) string {
		return func(what string) string {
			switch what {
			case "delegation":
				if mine {
					return "result" // an empty page, which needs no permission to send results
				}
				return "auth/forbidden"
			case "delegation 1":
				return map[bool]string{true: "result", false: "auth/forbidden"}[mine]
			}
			if !mine {
				return nosy(what)
			}
			return module(what)
		}
	}
	askers := []asker{
		{"the owner", own, own + "/a", client(juliet, ""), owner},
		{"the owner, by name", own, own + "/a", client(juliet, own), owner},
		{"the owner's other resource", own, own + "/b", client(other, own), owner},
		{"the owner, at the owner's resource", own, own + "/b", client(juliet, own+"/nowhere"), func(string) string { return "cancel/service-unavailable" }},
		{"another local user", own, own + "/a", client(romeo, own), func(what string) string { return somebody(what) }},
		{"a local user, of an account that isn't there", "nobody@test.example", own + "/a", client(romeo, "nobody@test.example"), somebody},
		{"a local user, of a linked account", "alice@linked.example", "alice@linked.example/x", client(romeo, "alice@linked.example"), func(string) string { return "cancel/remote-server-not-found" }},
		{"a local user, at the host", own, own + "/a", client(romeo, "test.example"), domain},
		{"a local user, at a component", own, own + "/a", client(romeo, "archive.linked.example"), func(string) string { return "cancel/remote-server-not-found" }},
		{"a connection that is not logged in", own, own + "/a", r.unauthenticated, func(string) string { return "stream/not-authorized" }},
		{"the module, for an owner", "alice@linked.example", "alice@linked.example/x", over(r.linked, "linked.example"), module},
		{"the module, for another user of its host", "alice@linked.example", "mallory@linked.example/x", over(r.linked, "linked.example"), nosy},
		{"the module, for a remote user", "alice@linked.example", "alice@evil.example/x", over(r.linked, "linked.example"), nosy},
		{"the module, for a local user", own, own + "/a", over(r.linked, "linked.example"), elsewhere},
		{"the module, for a user of another link", "carol@far.example", "carol@far.example/x", over(r.linked, "linked.example"), elsewhere},
		{"the module, for a room", "alice@rooms.linked.example", "alice@linked.example/x", over(r.linked, "linked.example"), elsewhere},
		{"a host of the link that said no hello", "dave@silent.example", "dave@silent.example/x", withoutHello(over(r.linked, "silent.example")), silent},
		{"an occupant who is an owner or admin of the room", "alice@rooms.linked.example", "alice@linked.example/x", asRoom(over(r.linked, "rooms.linked.example"), "all"), occupant},
		{"an occupant who is a member of the room, or none", "alice@rooms.linked.example", "bob@evil.example/x", asRoom(over(r.linked, "rooms.linked.example"), "own"), occupant},
		{"the module of a host with delegation, for an owner", "carol@far.example", "carol@far.example/x", over(r.far, "far.example"), delegating(true)},
		{"the module of a host with delegation, for another user", "dave@far.example", "mallory@far.example/x", over(r.far, "far.example"), delegating(false)},
	}
	for who, from := range map[string]string{
		"a host of another link":              "far.example",
		"a host that is on no link":           "test.example",
		"a remote user":                       "eve@evil.example/x",
		"a remote server":                     "evil.example",
		"another component of the server":     "other.linked.example",
		"the owner, past their server":        "alice@linked.example/x",
		"a user at the bare domain's place":   "linked.example/x",
		"the component itself":                "archive.linked.example",
		"a host in another spelling":          "LINKED.example",
		"a host with a dot behind it":         "linked.example.",
		"an outcast of the room":              "outcast@evil.example/x",
		"an occupant, past the room's server": "alice@rooms.linked.example/bob",
		"the room itself":                     "alice@rooms.linked.example",
		"nobody":                              "",
	} {
		askers = append(askers, asker{who + ", over a link", "alice@linked.example", "alice@linked.example/x", over(r.linked, from), stranger})
	}
	return askers
}

// inner is the condition of the last stanza of a page.
func inner(t *testing.T, page string) string {
	i := strings.LastIndex(page, "<iq")
	if i < 0 {
		t.Fatalf("a page without an answer: %s", page)
	}
	e, err := conformance.ParseElement(page[i:])
	if err != nil {
		t.Fatal(err)
	}
	return condition(e)
}

// unauthenticated asks without having logged in.
func (r *realm) unauthenticated(typ, payload string) string {
	r.t.Helper()
	conn, err := net.Dial("tcp", r.Addr)
	if err != nil {
		r.t.Fatal(err)
	}
	defer conn.Close()
	io.WriteString(conn, "<stream:stream xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams' version='1.0' to='test.example'>"+
		"<iq id='1' type='"+typ+"' to='juliet@test.example' from='juliet@test.example/a'>"+payload+"</iq>")
	b, err := io.ReadAll(conn)
	if err != nil {
		r.t.Fatal(err)
	}
	return "stream/" + streamEnd(string(b))
}

// anotherUID runs the commands as a user who has nothing to do with the server.
func (r *realm) anotherUID(t *testing.T) {
	if os.Getuid() != 0 {
		conformance.Skip(t, "only root can become another user")
	}
	bin, err := conformance.Binary()
	if err != nil {
		t.Fatal(err)
	}
	// What the other user must be able to reach at all: the program and the
	// socket's name; everything else about them would be refused before mamlog is asked.
	socket := filepath.Join(r.Dir, "data", "admin.sock")
	b, err := os.ReadFile(bin)
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("/tmp", "siege")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	copied, config := filepath.Join(dir, "mamlog"), filepath.Join(dir, "mamlog.yaml")
	if err := os.WriteFile(copied, b, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(config, fmt.Appendf(nil, "data_dir: %s\nhosts: [test.example]\nadmin: {socket: %s}\n", filepath.Join(r.Dir, "data"), socket), 0o644); err != nil {
		t.Fatal(err)
	}
	for d := r.Dir; len(d) > len("/tmp"); d = filepath.Dir(d) {
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, open := range []bool{false, true} { // the second time past the data directory, to the socket itself
		if open {
			if err := os.Chmod(filepath.Dir(socket), 0o755); err != nil {
				t.Fatal(err)
			}
		}
		before := r.position()
		for _, args := range [][]string{
			{"query", "juliet@test.example"}, {"prefs", "get", "juliet@test.example"}, {"prefs", "set", "juliet@test.example", "--default", "never"},
			{"prefs", "history", "juliet@test.example"}, {"user", "list"}, {"user", "delete", "juliet@test.example", "--yes"}, {"links"}, {"check"}, {"rebuild"},
		} {
			cmd := exec.Command(copied, append(args, "--config", config)...)
			cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
			out, err := cmd.CombinedOutput()
			if err == nil || !strings.Contains(string(out), "permission denied") {
				t.Errorf("%v: %v\n%s", args, err, out)
			}
		}
		if after := r.position(); after != before {
			t.Errorf("%d events came of it", after-before)
		}
	}
}
