package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"mamlog/xep0313/stanza"
)

// componentServer plays an XMPP server that lets every component in.
type componentServer struct {
	t *testing.T
	l net.Listener
}

func newComponentServer(t *testing.T) *componentServer {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return &componentServer{t, l}
}

// options is the configuration of a link to it.
func (s *componentServer) options() string {
	return fmt.Sprintf("links:\n  - {server: %q, domain: archive.test.example, secret: s3cret, hosts: [test.example]}\n", s.l.Addr())
}

// componentStream is one open stream to a component.
type componentStream struct {
	net.Conn
	t *testing.T
	r *stanza.Reader
}

func (s *componentServer) accept() *componentStream {
	s.t.Helper()
	s.l.(*net.TCPListener).SetDeadline(time.Now().Add(time.Minute))
	c, err := s.l.Accept()
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(time.Minute))
	in := bufio.NewReader(c)
	if _, err := in.ReadString('>'); err != nil { // its stream header
		s.t.Fatal(err)
	}
	x := &componentStream{c, s.t, stanza.NewReader(in, map[string]string{"": "jabber:component:accept"}, stanza.DefaultLimits)}
	x.send("<stream:stream xmlns='jabber:component:accept' xmlns:stream='http://etherx.jabber.org/streams' id='1'>")
	x.next() // the handshake
	x.send("<handshake/>")
	return x
}

func (x *componentStream) send(format string, args ...any) {
	x.t.Helper()
	if _, err := fmt.Fprintf(x, format, args...); err != nil {
		x.t.Fatal(err)
	}
}

func (x *componentStream) next() *stanza.Element {
	x.t.Helper()
	e, err := x.r.Next()
	if err != nil {
		x.t.Fatal(err)
	}
	return e
}

// ask sends an iq of the host and returns the answer.
func (x *componentStream) ask(typ, payload string) *stanza.Element {
	x.t.Helper()
	x.send("<iq type='%s' id='1' from='test.example' to='archive.test.example'>%s</iq>", typ, payload)
	e := x.next()
	if e.Attr("type") != "result" {
		x.t.Fatalf("got %s", e.Bytes())
	}
	return e
}

const (
	helloXML  = `<hello xmlns='urn:mamlog:attach:1' versions='1' serves='accounts' software='Prosody &#x1f308;' spool='3' spool-bytes='5000' error='disk full'/>`
	appendXML = `<batch xmlns='urn:mamlog:attach:1'><append dir='in' owner='juliet@test.example' peer='romeo@remote.example/x' key='1'>` +
		`<message xmlns='jabber:client' type='chat' from='romeo@remote.example/x' to='juliet@test.example'><body>hi over the link</body></message></append></batch>`
)

// linked is a site whose only host is on a link to s.
func linked(t *testing.T, s *componentServer) *site {
	t.Helper()
	site := newSite(t, "")
	text := fmt.Sprintf("data_dir: %s\nhosts: [test.example]\n%s", site.data, s.options())
	if err := os.WriteFile(site.config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return site
}

func TestLinks(t *testing.T) {
	server := newComponentServer(t)
	s := linked(t, server)
	s.run("", "links").want(1, "no server answers", "links are open only while 'mamlog serve' runs")
	r := s.serve()
	if r.ready["c2s"] != nil || r.ready["links"] != 1.0 {
		t.Errorf("it serves %v", r.ready)
	}
	x := server.accept()
	x.ask("get", `<ping xmlns='urn:xmpp:ping'/>`)
	s.run("", "links").want(0, "archive.test.example  up since", "server   "+server.l.Addr().String(), "test.example  no hello")

	x.ask("get", helloXML)
	if e := x.ask("set", appendXML); len(e.ChildText("urn:mamlog:attach:1", "archived")) != 26 {
		t.Errorf("got %s", e.Bytes())
	}
	if got := s.run("", "links").want(0, "appends  1 answered", "0 in flight, p50 ", "test.example says: disk full").out; !strings.Contains(got, "HOST          SERVES    SPOOL      SOFTWARE\n  test.example  accounts  3 (5 KiB)  Prosody 🌈\n") {
		t.Errorf("the table is\n%s", got)
	}
	s.run("", "query", "juliet@test.example").want(0, "hi over the link")

	var j jsonLink
	out := s.run("", "links", "--json").want(0).out
	if err := json.Unmarshal([]byte(out), &j); err != nil || strings.Count(out, "\n") != 1 {
		t.Fatalf("%v in %s", err, out)
	}
	if j.State != "up" || j.Appends.Total != 1 || j.Appends.P99 <= 0 || j.Fault != nil || len(j.Hosts) != 1 || *j.Hosts[0].SpoolBytes != 5000 || *j.Hosts[0].Serves != "accounts" || *j.Hosts[0].Error != "disk full" {
		t.Errorf("got %s", out)
	}

	x.Close()
	server.l.Close()
	for !strings.Contains(s.run("", "links").want(0).out, "nothing listens at") {
	}
	s.run("", "links").want(0, "archive.test.example  down since", "fault ", "no hello")
	if code := r.stop(syscall.SIGTERM); code != 0 {
		t.Errorf("exit code %d", code)
	}
	for _, line := range []string{`"msg":"link: up"`, `"msg":"link: a host is served"`, `"msg":"link: down; it is tried again until it is up"`} {
		if !strings.Contains(r.log.String(), line) {
			t.Errorf("no %s in the log:\n%s", line, r.log)
		}
	}
	if strings.Contains(r.log.String(), "over the link") || strings.Contains(r.log.String(), "s3cret") {
		t.Errorf("the log tells too much:\n%s", r.log)
	}
}

// TestSignalEndsLinks: the stream is ended, and not cut.
func TestSignalEndsLinks(t *testing.T) {
	server := newComponentServer(t)
	s := linked(t, server)
	r := s.serve()
	x := server.accept()
	x.ask("get", helloXML)
	x.ask("set", appendXML)
	if err := r.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if _, err := x.r.Next(); err != io.EOF {
		t.Errorf("the stream ends with %v", err)
	}
	x.Close()
	<-r.ended
	if err := r.cmd.Wait(); err != nil {
		t.Errorf("%v:\n%s", err, r.log)
	}
	s.run("", "query", "juliet@test.example").want(0, "hi over the link")
}

// TestHostsOnLinksHaveNoAccounts: those are the other server's.
func TestHostsOnLinksHaveNoAccounts(t *testing.T) {
	server := newComponentServer(t)
	s := linked(t, server)
	for _, beside := range []bool{false, true} {
		if beside {
			s.serve()
		}
		s.run("x\n", "user", "add", "juliet@test.example").want(1, "test.example is on a link")
		s.run("x\n", "user", "passwd", "juliet@test.example").want(1, "test.example is on a link")
		s.run("", "user", "delete", "juliet@test.example", "--yes").want(1, "test.example is on a link")
		s.run("", "user", "list").want(0)
	}
	s.run("", "serve", "--listen", "127.0.0.1:0").want(2, "all hosts in "+s.config+" are on links")
}

// TestSomeHostsOnLinks: the embedded host serves the others.
func TestSomeHostsOnLinks(t *testing.T) {
	server := newComponentServer(t)
	s := newSite(t, "")
	text := fmt.Sprintf("data_dir: %s\nhosts: [test.example, local.example]\nc2s: {listen: \"127.0.0.1:0\", allow_plaintext: true}\n%s", s.data, server.options())
	if err := os.WriteFile(s.config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	r := s.serve()
	s.run("x\n", "user", "add", "romeo@local.example").want(0)
	if !login(t, r.ready["c2s"].(string), "local.example", "romeo", "x") {
		t.Error("a user of the local host can't log in")
	}
	server.accept().ask("get", helloXML)
	r.stop(syscall.SIGTERM)

	// Without c2s nobody serves it, which is worth a word.
	text = fmt.Sprintf("data_dir: %s\nhosts: [test.example, local.example]\n%s", s.data, server.options())
	if err := os.WriteFile(s.config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	r = s.serve()
	r.stop(syscall.SIGTERM)
	if !strings.Contains(r.log.String(), "these hosts are on no link") {
		t.Errorf("no warning in the log:\n%s", r.log)
	}
}

// TestDeletedAndMadeAnew: what a linked server says was deleted is empty, and what
// comes later can be read.
func TestDeletedAndMadeAnew(t *testing.T) {
	server := newComponentServer(t)
	s := linked(t, server)
	s.serve()
	x := server.accept()
	x.ask("get", helloXML)
	x.ask("set", appendXML)
	x.ask("set", `<delete xmlns='urn:mamlog:attach:1' owner='juliet@test.example'/>`)
	s.run("", "query", "juliet@test.example").want(4, "there is no user")
	x.ask("set", strings.ReplaceAll(appendXML, "over the link", "again"))
	if out := s.run("", "query", "juliet@test.example").want(0, "hi again").out; strings.Contains(out, "over the link") {
		t.Errorf("what was deleted is shown:\n%s", out)
	}
}

func TestLinkFiles(t *testing.T) {
	server := newComponentServer(t)
	s := newSite(t, "")
	file := filepath.Join(s.dir, "file")
	configure := func(options string) {
		text := fmt.Sprintf("data_dir: %s\nhosts: [test.example]\nlinks:\n  - {server: %q, domain: archive.test.example, hosts: [test.example], %s}\n", s.data, server.l.Addr(), options)
		if err := os.WriteFile(s.config, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte("\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	configure("secret_file: " + file)
	s.run("", "serve").want(1, "links[0] in "+s.config, "no secret in "+file)
	configure("secret: s, tls: true, ca: " + file)
	s.run("", "serve").want(1, "links[0] in "+s.config, "no certificate in "+file)
	configure("secret: s, tls: true")
	r := s.serve()
	server.l.(*net.TCPListener).SetDeadline(time.Now().Add(time.Minute))
	c, err := server.l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	hello := make([]byte, 3)
	if _, err := io.ReadFull(c, hello); err != nil || hello[0] != 22 {
		t.Errorf("it does not begin with TLS: %x, %v", hello, err)
	}
	c.Close()
	r.stop(syscall.SIGTERM)
}

func TestNoLinks(t *testing.T) {
	s := newSite(t, "")
	s.serve()
	if r := s.run("", "links").want(0, "no links are configured"); r.out != "" {
		t.Errorf("it prints %q", r.out)
	}
}
