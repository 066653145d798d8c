package main

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/sstable"
	"github.com/cockroachdb/pebble/v2/sstable/block"

	"mamlog/cmd/mamlog/conformance"
)

// filesWith lists the files of the site that have text anywhere: as they are, and
// tables also with every block decompressed.
func (s *site) filesWith(text string) (names []string) {
	s.t.Helper()
	err := filepath.WalkDir(s.data, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		var b []byte
		var blocks [][]byte
		for end := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
			if b, err = os.ReadFile(path); os.IsNotExist(err) {
				return nil // a compaction has just deleted it
			}
			if err != nil {
				return err
			}
			if filepath.Ext(path) != ".sst" {
				break
			}
			if blocks, err = tableBlocks(b); err == nil {
				break
			}
			if time.Now().After(end) { // until then one is just writing it
				return fmt.Errorf("%s: %w", path, err)
			}
		}
		blocks = append(blocks, b)
		if filepath.Ext(path) == ".blob" {
			return fmt.Errorf("%s: this test does not know how values outside of tables are stored", path)
		}
		if slices.ContainsFunc(blocks, func(b []byte) bool { return bytes.Contains(b, []byte(text)) }) {
			name, err := filepath.Rel(s.data, path)
			names = append(names, name)
			return err
		}
		return nil
	})
	if err != nil && !os.IsNotExist(err) {
		s.t.Fatal(err)
	}
	return names
}

// tableBlocks are all blocks of a table, decompressed.
func tableBlocks(table []byte) (blocks [][]byte, err error) {
	r, err := sstable.NewMemReader(bytes.Clone(table), sstable.ReaderOptions{})
	if err != nil {
		return nil, err
	}
	defer r.Close()
	l, err := r.Layout()
	if err != nil {
		return nil, err
	}
	handles := append(slices.Clone(l.Index), l.ValueBlock...)
	handles = append(handles, l.TopIndex, l.RangeDel, l.RangeKey, l.ValueIndex, l.Properties, l.MetaIndex, l.BlobReferenceIndex)
	for _, h := range l.Data {
		handles = append(handles, h.Handle)
	}
	for _, h := range l.Filter {
		handles = append(handles, h.Handle)
	}
	for _, h := range handles {
		if h.Length == 0 {
			continue
		}
		kind, raw := block.CompressionIndicator(table[h.Offset+h.Length]), table[h.Offset:h.Offset+h.Length]
		n, err := block.DecompressedLen(kind, raw)
		if err != nil {
			return nil, err
		}
		b := make([]byte, n)
		if err := block.DecompressInto(kind, raw, b); err != nil {
			return nil, err
		}
		blocks = append(blocks, b)
	}
	return blocks, nil
}

// has fails unless a file with that ending has text.
func (s *site) has(text, ext string) {
	s.t.Helper()
	if names := s.filesWith(text); !slices.ContainsFunc(names, func(n string) bool { return filepath.Ext(n) == ext }) {
		s.t.Fatalf("no %s file has %q, only %v: this test could not fail", ext, text, names)
	}
}

// hasNot fails if a file has one of texts.
func (s *site) hasNot(texts ...string) {
	s.t.Helper()
	for _, text := range texts {
		if names := s.filesWith(text); len(names) > 0 {
			s.t.Errorf("%q is in %v", text, names)
		}
	}
}

// chat appends n messages that owner received, each with word in its body and its
// number, and returns their archive ids.
func (x *componentStream) chat(owner, word string, n int) (ids []string) {
	x.t.Helper()
	for at := 0; at < n; at += 100 {
		var b strings.Builder
		b.WriteString(`<batch xmlns='urn:mamlog:attach:1'>`)
		for i := at; i < min(n, at+100); i++ {
			fmt.Fprintf(&b, `<append dir='in' owner='%s' peer='romeo@remote.example/x' key='%s %d'><message xmlns='jabber:client' type='chat' id='%[2]s-%[3]d' from='romeo@remote.example/x' to='%[1]s'><body>it is %[2]s %[3]d</body></message></append>`, owner, word, i)
		}
		b.WriteString(`</batch>`)
		ids = append(ids, strings.Fields(x.ask("set", b.String()).ChildText("urn:mamlog:attach:1", "archived"))...)
	}
	return ids
}

// TestErasedLeavesNoByte: of what a user was sent, no file of the stores has a byte
// after an erasure; that there was something remains.
func TestErasedLeavesNoByte(t *testing.T) {
	const juliet, romeo, nurse = "juliet@test.example", "romeo@test.example", "nurse@test.example"
	server := newComponentServer(t)
	s := linked(t, server)
	r := s.serve()
	x := server.accept()
	x.ask("get", helloXML)
	x.chat(juliet, "balderdash", 300)
	x.chat(romeo, "marmalade", 100)
	x.chat(nurse, "poppycock", 100)
	s.run("", "prefs", "set", juliet, "--never", "tybalt@remote.example").want(0)
	if code := r.stop(15); code != 0 {
		t.Fatalf("exit code %d", code)
	}
	r = s.serve()
	x = server.accept()
	x.ask("get", helloXML)
	x.chat(juliet, "gibberish", 100) // in the write-ahead log
	x.chat(romeo, "marmalade again", 100)
	s.has("balderdash", ".sst")
	s.has("gibberish", ".log")

	out := s.run("", "erase", juliet, "--yes").want(0, "erased "+juliet+": 400 messages, ", "1 changes of preferences and 0 of the roster").out
	gone := []string{"balderdash", "gibberish", "tybalt@"}
	s.hasNot(gone...)
	s.has("marmalade", ".sst")
	if got := s.run("", "query", juliet).want(0).out; strings.Contains(got, "romeo") {
		t.Errorf("what was erased is shown:\n%s", got)
	}
	s.run("", "audit", "--owner", juliet, "--kind", "erase,erased,preferences").want(0,
		"ordered to erase everything", "gone are "+strings.TrimSpace(strings.SplitN(out, ": ", 2)[1]), "what was personal in it is erased")

	// The end of an account over a link does the same by itself.
	x.ask("set", `<delete xmlns='urn:mamlog:attach:1' owner='`+nurse+`'/>`)
	for deadline := time.Now().Add(time.Minute); len(s.filesWith("poppycock")) > 0; time.Sleep(100 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("a minute after the account was deleted, %v have what it was sent", s.filesWith("poppycock"))
		}
	}
	s.run("", "audit", "--owner", nurse, "--kind", "erased").want(0, "gone are 100 messages, ")

	gone = append(gone, "poppycock")
	s.run("", "check").want(0)
	s.run("", "rebuild").want(0)
	s.hasNot(gone...)
	if code := r.stop(15); code != 0 {
		t.Fatalf("exit code %d:\n%s", code, r.log)
	}
	s.hasNot(gone...)
	s.run("", "check").want(0)
	if got := s.run("", "query", romeo, "--json").want(0).messages(); len(got) != 200 {
		t.Errorf("romeo has %d messages, want 200", len(got))
	}
}

// salt asks for the salt of a user's SCRAM keys, which the server tells whoever
// begins to log in.
func salt(t *testing.T, addr, user string) string {
	t.Helper()
	c, err := net.DialTimeout("tcp", addr, 10*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(20 * time.Second))
	first := base64.StdEncoding.EncodeToString([]byte("n,,n=" + user + ",r=nonce"))
	fmt.Fprintf(c, "<stream:stream xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams' to='test.example' version='1.0'>"+
		"<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='SCRAM-SHA-256'>%s</auth>", first)
	var got strings.Builder
	for b := make([]byte, 1); !strings.HasSuffix(got.String(), "</challenge>"); got.Write(b) {
		if _, err := io.ReadFull(c, b); err != nil {
			t.Fatalf("the server said %q: %v", got.String(), err)
		}
	}
	_, challenge, _ := strings.Cut(strings.TrimSuffix(got.String(), "</challenge>"), "<challenge xmlns='urn:ietf:params:xml:ns:xmpp-sasl'>")
	plain, err := base64.StdEncoding.DecodeString(challenge)
	if err != nil {
		t.Fatalf("%s: %v", got.String(), err)
	}
	_, text, _ := strings.Cut(string(plain), ",s=")
	text, _, _ = strings.Cut(text, ",")
	b, err := base64.StdEncoding.DecodeString(text)
	if err != nil || len(b) < 8 {
		t.Fatalf("%q has the salt %q: %v", plain, text, err)
	}
	return string(b)
}

// TestErasedAccountLeavesNoByte: of all that the embedded host keeps of a user no
// file has a byte after an erasure, but what verifies their password, and after the
// end of the account not that either; and their contacts don't take whoever has the
// name next for the same.
func TestErasedAccountLeavesNoByte(t *testing.T) {
	const juliet, romeo = "juliet@test.example", "romeo@test.example"
	s := newSite(t, "")
	for _, user := range []string{juliet, romeo} {
		s.run("secret", "user", "add", user).want(0)
	}
	var r *running
	dial := func(user string) *conformance.Client {
		t.Helper()
		c, err := conformance.Dial(t.Context(), conformance.DialOptions{
			Addr: r.ready["c2s"].(string), Domain: "test.example", User: user, Password: "secret", Resource: "r",
		})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(c.Drop)
		return c
	}
	roster := func(c *conformance.Client, typ, items string) string {
		t.Helper()
		e, err := c.Call(typ, "<query xmlns='jabber:iq:roster'>"+items+"</query>")
		if err != nil || e.Attr("type") != "result" {
			t.Fatalf("%s, %v", e, err)
		}
		return e.String()
	}
	// subscribe makes each see the other, and what they say of each other personal.
	subscribe := func(word string) {
		t.Helper()
		a, b := dial("juliet"), dial("romeo")
		roster(a, "set", "<item jid='"+romeo+"' name='"+word+"'><group>a group of "+word+"</group></item>")
		roster(a, "set", "<item jid='"+word+"@test.example'/>")
		for _, step := range []struct {
			c       *conformance.Client
			typ, to string
		}{{a, "subscribe", romeo}, {b, "subscribed", juliet}, {b, "subscribe", juliet}, {a, "subscribed", romeo}} {
			step.c.Send("<presence type='" + step.typ + "' to='" + step.to + "'/>")
			if _, err := step.c.Call("get", "<ping xmlns='urn:xmpp:ping'/>"); err != nil { // it is done
				t.Fatal(err)
			}
		}
		b.Send("<message type='chat' to='" + juliet + "'><body>" + word + "</body></message>")
		s.run("", "prefs", "set", juliet, "--never", word+"@remote.example").want(0)
		s.run("", "retention", "set", juliet, "--quota-items", "1000").want(0)
		if got := roster(b, "get", ""); !strings.Contains(got, "both") {
			t.Fatalf("romeo's roster is %s", got)
		}
		a.Drop()
		b.Drop()
	}
	restart := func() {
		t.Helper()
		if r != nil {
			if code := r.stop(syscall.SIGTERM); code != 0 {
				t.Fatalf("exit code %d:\n%s", code, r.log)
			}
		}
		r = s.serve()
	}
	alone := func() {
		t.Helper()
		if got := roster(dial("romeo"), "get", ""); !strings.Contains(got, juliet) || !strings.Contains(got, "none") {
			t.Errorf("romeo's roster is %s", got)
		}
	}

	restart()
	subscribe("balderdash")
	restart() // and all of it is in tables
	keys := salt(t, r.ready["c2s"].(string), "juliet")
	for _, text := range []string{"a group of balderdash", "balderdash@test.example", "balderdash@remote.example", "<body>balderdash", keys} {
		s.has(text, ".sst")
	}
	s.run("", "erase", juliet, "--yes").want(0, "erased "+juliet+": 1 messages, ", "1 changes of preferences and ")
	s.run("", "retention", "show", juliet).want(0, "none (the host's)")
	a := dial("juliet")
	if got := roster(a, "get", ""); strings.Contains(got, "item") {
		t.Errorf("juliet's roster is %s", got)
	}
	a.Drop()
	alone()
	restart()
	// What romeo sent is in his archive.
	for _, text := range []string{"a group of balderdash", "balderdash@test.example", "balderdash@remote.example"} {
		s.hasNot(text)
	}
	s.has(keys, ".sst")

	subscribe("gibberish")
	s.has("a group of gibberish", ".log")
	s.run("", "user", "delete", juliet, "--yes").want(0)
	s.run("", "user", "delete", romeo, "--yes").want(0)
	for deadline := time.Now().Add(time.Minute); len(s.filesWith("gibberish"))+len(s.filesWith("balderdash"))+len(s.filesWith(keys)) > 0; time.Sleep(100 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("a minute after the accounts were deleted, %v, %v and %v have what was theirs",
				s.filesWith("gibberish"), s.filesWith("balderdash"), s.filesWith(keys))
		}
	}
	s.run("", "check").want(0)
}

// TestForgottenLeavesNoByte: what was trimmed, retracted or exceeded a quota leaves
// the files with the next clean-up, and what is older than a user's retention too.
func TestForgottenLeavesNoByte(t *testing.T) {
	const juliet, romeo = "juliet@test.example", "romeo@test.example"
	me, err := user.Current()
	if err != nil {
		t.Fatal(err)
	}
	server := newComponentServer(t)
	s := linked(t, server)
	r := s.serve()
	x := server.accept()
	x.ask("get", helloXML)
	trimmed := x.chat(juliet, "balderdash", 20)
	x.chat(juliet, "marmalade", 5)
	x.ask("set", `<batch xmlns='urn:mamlog:attach:1'><append dir='in' owner='`+juliet+`' peer='romeo@remote.example/x' key='r'>`+
		`<message xmlns='jabber:client' type='chat' id='r' from='romeo@remote.example/x' to='`+juliet+`'><retract xmlns='urn:xmpp:message-retract:1' id='marmalade-2'/></message></append></batch>`)
	x.chat(romeo, "poppycock", 30)

	trim := `<query xmlns='urn:mamlog:attach:1' owner='` + juliet + `' asker='` + juliet + `/phone'><iq xmlns='jabber:client' type='set' id='t'><trim xmlns='urn:mamlog:trim:0' until='` + trimmed[19] + `'/></iq></query>`
	if page := x.ask("get", trim).ChildText("urn:mamlog:attach:1", "page"); !strings.Contains(page, "count='20'") {
		t.Fatalf("got %s", page)
	}
	s.run("", "retention", "set", romeo, "--quota-items", "16").want(0, "16 (the user's own)", "expires after  1w (the host's)")
	s.run("", "retention", "show", romeo, "--json").want(0, `"quota_items":"16","quota_bytes":"none","own":["quota_items"]`)
	s.run("", "audit", "--owner", romeo, "--kind", "retention").want(0, "quota of messages: 16")
	s.run("", "expire").want(0, "test.example: ")
	s.hasNot("it is balderdash", "it is marmalade 2<", "it is poppycock 0<", "it is poppycock 14<")
	s.has("it is marmalade 3", ".sst")
	if got := s.run("", "query", romeo, "--json").want(0).messages(); len(got) != 15 { // a sixteenth more than must goes
		t.Errorf("romeo has %d messages, want 15", len(got))
	}
	if got := s.run("", "query", juliet, "--json").want(0).messages(); len(got) != 6 {
		t.Errorf("juliet has %d messages, want 6", len(got))
	}
	s.run("", "audit", "--owner", juliet, "--kind", "cut").want(0, juliet+"/phone", "deleted by the user: 20 messages, ", "up to "+trimmed[19])
	s.run("", "audit", "--owner", romeo, "--kind", "cut").want(0, "more than the quota: ")
	s.run("", "check").want(0)

	s.run("", "retention", "set", romeo, "--expires-after", "2w").want(2, "nobody's are kept for longer")
	s.run("", "retention", "set", romeo, "--quota-items", "0").want(2, "allowed is an integer from 1")
	s.run("", "retention", "set", romeo).want(2, "nothing is to be set")

	// Without a server nothing is cut before it is asked for.
	if code := r.stop(15); code != 0 {
		t.Fatalf("exit code %d:\n%s", code, r.log)
	}
	s.run("", "retention", "set", romeo, "--expires-after", "1", "--quota-items", "host").want(0, "expires after  1 (the user's own)", "none (the host's)")
	for deadline := time.Now().Add(time.Minute); len(s.run("", "query", romeo, "--json").messages()) > 0; time.Sleep(100 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("what is older than a second is shown after a minute")
		}
	}
	s.run("", "expire", "--dry-run").want(0, "test.example: would delete messages of 1 archives", "older than a user's own      15 messages, ")
	s.has("it is poppycock 29", ".sst")
	s.run("", "expire", "test.example").want(0, "test.example: deleted messages of 1 archives")
	s.run("", "audit", "--owner", romeo, "--kind", "cut", "--actor", "operator:"+me.Username).want(0, "older than the user's own retention: 15 messages, ")
	s.hasNot("it is poppycock")
	s.run("", "expire", "--dry-run", "--json").want(0, `{"host":"test.example","archives":0,`)
	s.run("", "expire", "elsewhere.example").want(2, "none of this server's hosts")
	s.run("", "check").want(0)
}
