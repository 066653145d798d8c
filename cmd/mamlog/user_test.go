package main

import (
	"encoding/base64"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"
)

// TestUsers does the same beside a running server and on a stopped store.
func TestUsers(t *testing.T) {
	for _, beside := range []bool{false, true} {
		t.Run(map[bool]string{false: "stopped", true: "running"}[beside], func(t *testing.T) {
			s := newSite(t, "")
			if beside {
				s.serve()
			} else {
				s.run("", "user", "list").want(1, "there is no store in "+s.data)
			}
			s.run("secret\n", "user", "add", "Juliet@Test.Example").want(0, "added juliet@test.example")
			s.run("secret\r\nignored\n", "user", "add", "romeo@test.example").want(0)
			s.run("secret", "user", "add", "nurse@test.example").want(0)
			s.run("other\n", "user", "add", "juliet@test.example").want(1, "exists already")
			s.run("x\n", "user", "add", "juliet@elsewhere.example").want(4, "elsewhere.example is none of this server's hosts (test.example)")
			s.run("x\n", "user", "add", "test.example").want(2, "names no user")
			s.run("x\n", "user", "add", "juliet@test.example/phone").want(2, "has a resource")
			s.run("\n", "user", "add", "paris@test.example").want(2, "no password")
			s.run("", "user", "add", "paris@test.example").want(2, "no password")
			s.run("x\n", "user", "add").want(2, "the JID is missing", "--help")

			list := s.run("", "user", "list").want(0)
			if want := "juliet@test.example\nnurse@test.example\nromeo@test.example\n"; list.out != want {
				t.Errorf("user list printed %q, want %q", list.out, want)
			}
			s.run("", "user", "list", "test.example").want(0, "romeo@test.example")
			s.run("", "user", "list", "elsewhere.example").want(2, "none of this server's hosts")

			s.run("new\n", "user", "passwd", "juliet@test.example").want(0, "set the password of juliet@test.example")
			s.run("new\n", "user", "passwd", "paris@test.example").want(4, "there is no user paris@test.example")
			s.run("", "user", "delete", "nurse@test.example").want(0, "deleted nurse@test.example")
			s.run("", "user", "delete", "nurse@test.example", "--yes").want(4, "there is no user")
			if list := s.run("", "user", "list").want(0); strings.Contains(list.out, "nurse") {
				t.Errorf("the deleted user is listed:\n%s", list.out)
			}
		})
	}
}

// TestLogin logs in with the passwords that the commands set.
func TestLogin(t *testing.T) {
	s := newSite(t, "")
	s.run("first\n", "user", "add", "juliet@test.example").want(0)
	addr := s.serve().ready["c2s"].(string)
	check := func(password string, want bool) {
		t.Helper()
		if got := login(t, addr, "test.example", "juliet", password); got != want {
			t.Errorf("logging in with %q: %v, want %v", password, got, want)
		}
	}
	check("first", true)
	check("second", false)
	s.run("second\n", "user", "passwd", "juliet@test.example").want(0)
	check("first", false)
	check("second", true)
	s.run("", "user", "delete", "juliet@test.example").want(0)
	check("second", false)
}

// login tries SASL PLAIN on a stream without TLS.
func login(t *testing.T, addr, host, user, password string) bool {
	t.Helper()
	c, err := net.DialTimeout("tcp", addr, 10*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(20 * time.Second))
	fmt.Fprintf(c, "<?xml version='1.0'?><stream:stream xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams' to='%s' version='1.0'>", host)
	var got strings.Builder
	until := func(words ...string) string {
		b := make([]byte, 4096)
		for {
			for _, w := range words {
				if strings.Contains(got.String(), w) {
					return w
				}
			}
			n, err := c.Read(b)
			if err != nil {
				t.Fatalf("the server said %q: %v", got.String(), err)
			}
			got.Write(b[:n])
		}
	}
	until("</stream:features>", "</features>")
	fmt.Fprintf(c, "<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>%s</auth>",
		base64.StdEncoding.EncodeToString([]byte("\x00"+user+"\x00"+password)))
	return until("<success", "<failure") == "<success"
}
