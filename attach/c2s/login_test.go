package c2s

import (
	"context"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/xdg-go/scram"
	"mellium.im/sasl"
	"mellium.im/xmpp"
	"mellium.im/xmpp/jid"

	"mamlog/xep0313/stanza"
)

// TestMelliumLogin logs in with a client that somebody else wrote, by each
// mechanism over TLS.
func TestMelliumLogin(t *testing.T) {
	f := start(t, func(c *Config) { c.AllowPlaintext = false })
	f.account("juliet")
	for _, tt := range []struct {
		name           string
		mechanism      sasl.Mechanism
		user, password string
		ok             bool
	}{
		{"SCRAM-SHA-256", sasl.ScramSha256, "juliet", "secret-juliet", true},
		{"SCRAM-SHA-1", sasl.ScramSha1, "juliet", "secret-juliet", true},
		{"PLAIN", sasl.Plain, "juliet", "secret-juliet", true},
		{"SCRAM-SHA-256, wrong password", sasl.ScramSha256, "juliet", "wrong", false},
		{"SCRAM-SHA-1, wrong password", sasl.ScramSha1, "juliet", "wrong", false},
		{"PLAIN, wrong password", sasl.Plain, "juliet", "wrong", false},
		{"SCRAM-SHA-256, unknown user", sasl.ScramSha256, "nobody", "secret-juliet", false},
		{"PLAIN, unknown user", sasl.Plain, "nobody", "secret-juliet", false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			conn, err := net.Dial("tcp", f.s.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			ctx, cancel := context.WithTimeout(context.Background(), patience)
			defer cancel()
			x, err := xmpp.NewClientSession(ctx, jid.MustParse(tt.user+"@"+testHost+"/balcony"), conn,
				xmpp.StartTLS(clientTLS()), xmpp.SASL("", tt.password, tt.mechanism), xmpp.BindResource())
			if (err == nil) != tt.ok {
				t.Fatalf("login: %v, want success %v", err, tt.ok)
			}
			// It does not send the resource that it was given.
			if tt.ok && x.LocalAddr().Bare().String() != "juliet@test.example" {
				t.Errorf("bound %s", x.LocalAddr())
			}
			if !tt.ok && !strings.Contains(err.Error(), "not-authorized") {
				t.Errorf("error %v, want not-authorized", err)
			}
		})
	}
}

func TestFeatures(t *testing.T) {
	names := func(e *stanza.Element) (s string) {
		for _, f := range e.Elements() {
			s += f.Local
			if f.Child(nsTLS, "required") != nil {
				s += "(required)"
			}
			for _, m := range f.Elements() {
				if m.Local == "mechanism" {
					s += " " + m.Text()
				}
			}
			s += ";"
		}
		return s
	}
	const all = "mechanisms SCRAM-SHA-256 SCRAM-SHA-1 PLAIN;"
	f := start(t, nil)
	f.account("juliet")
	c := f.dial()
	if got := names(c.open()); got != "starttls;"+all {
		t.Errorf("plaintext listener: %s", got)
	}
	c.send("<auth xmlns='%s' mechanism='PLAIN'>%s</auth>", nsSASL, plainData("juliet", "secret-juliet"))
	c.next()
	if got := names(c.open()); got != "bind;session;" {
		t.Errorf("after authentication: %s", got)
	}

	c = f.dial()
	c.open()
	c.startTLS()
	c.login("juliet", "chosen") // TLS where plain text would do

	f = start(t, func(c *Config) { c.AllowPlaintext = false })
	c = f.dial()
	if got := names(c.open()); got != "starttls(required);" {
		t.Errorf("before TLS: %s", got)
	}
	c.startTLS()
	if got := names(c.open()); got != all {
		t.Errorf("after TLS: %s", got)
	}
}

func (c *client) startTLS() {
	c.t.Helper()
	c.send("<starttls xmlns='%s'/>", nsTLS)
	if e := c.next(); !e.Is(nsTLS, "proceed") {
		c.t.Fatalf("starttls: %s", e.Bytes())
	}
	tc := tls.Client(c.conn, clientTLS())
	if err := tc.Handshake(); err != nil {
		c.t.Fatal(err)
	}
	*c = *c.f.client(tc)
}

func TestPlaintextIsRefused(t *testing.T) {
	f := start(t, func(c *Config) { c.AllowPlaintext = false })
	f.account("juliet")
	c := f.dial()
	c.open()
	c.send("<auth xmlns='%s' mechanism='PLAIN'>%s</auth>", nsSASL, plainData("juliet", "secret-juliet"))
	c.streamError("not-authorized")

	c2 := f.s.c
	c2.AllowPlaintext, c2.Listen, c2.Metrics = true, "0.0.0.0:0", nil
	if _, err := New(c2); err == nil || !strings.Contains(err.Error(), "loopback") {
		t.Errorf("plaintext on all interfaces: %v", err)
	}
	c2.Listen = f.s.Addr().String()
	if _, err := New(c2); err == nil {
		t.Error("a port in use is no error")
	}
}

func (c *client) challenge() string {
	c.t.Helper()
	e := c.next()
	if !e.Is(nsSASL, "challenge") {
		c.t.Fatalf("instead of a challenge: %s", e.Bytes())
	}
	b, err := base64.StdEncoding.DecodeString(e.Text())
	if err != nil {
		c.t.Fatal(err)
	}
	return string(b)
}

func b64(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }

func TestAuthenticationFailures(t *testing.T) {
	f := start(t, func(c *Config) { c.Limits.Logins = 20 })
	f.account("juliet")
	c := f.dial()
	c.open()
	auth := func(mechanism, data string) string {
		return fmt.Sprintf("<auth xmlns='%s' mechanism='%s'>%s</auth>", nsSASL, mechanism, data)
	}
	for _, tt := range []struct{ name, send, want string }{
		{"unknown mechanism", auth("X-NONE", ""), "invalid-mechanism"},
		{"not base64", auth("PLAIN", "!!!"), "incorrect-encoding"},
		{"bad padding", auth("PLAIN", "AGE"), "incorrect-encoding"},
		{"empty initial response", auth("PLAIN", "="), "malformed-request"},
		{"no password", auth("PLAIN", plainData("juliet", "")), "malformed-request"},
		{"bad SCRAM", auth("SCRAM-SHA-256", b64("nonsense")), "malformed-request"},
		{"channel binding", auth("SCRAM-SHA-256", b64("p=tls-unique,,n=juliet,r=abc")), "malformed-request"},
		{"wrong password", auth("PLAIN", plainData("juliet", "wrong")), "not-authorized"},
		{"not a name", auth("PLAIN", plainData("a b", "wrong")), "not-authorized"},
		{"somebody else", auth("PLAIN", b64("romeo@test.example\x00juliet\x00secret-juliet")), "invalid-authzid"},
		{"abort", "<abort xmlns='" + nsSASL + "'/>", "aborted"},
	} {
		c.send("%s", tt.send)
		if e := c.next(); !e.Is(nsSASL, "failure") || e.Child(nsSASL, tt.want) == nil {
			t.Fatalf("%s: %s, want %s", tt.name, e.Bytes(), tt.want)
		}
	}
	// Aborted in the middle.
	c.send("%s", auth("SCRAM-SHA-1", b64("n,,n=juliet,r=abc")))
	c.challenge()
	c.send("<abort xmlns='%s'/>", nsSASL)
	if e := c.next(); e.Child(nsSASL, "aborted") == nil {
		t.Fatalf("abort: %s", e.Bytes())
	}
	// Without an initial response, after all that.
	c.send("<auth xmlns='%s' mechanism='PLAIN'/>", nsSASL)
	if got := c.challenge(); got != "" {
		t.Fatalf("challenge %q", got)
	}
	c.send("<response xmlns='%s'>%s</response>", nsSASL, plainData("juliet@test.example", "secret-juliet"))
	if e := c.next(); !e.Is(nsSASL, "success") {
		t.Fatalf("at last: %s", e.Bytes())
	}
	c.open()
	c.bind("")
	for _, entry := range f.logs.All() {
		for k, v := range entry.ContextMap() {
			if strings.Contains(fmt.Sprint(v), "secret-") {
				t.Errorf("a password is in the log: %s %s=%v", entry.Message, k, v)
			}
		}
	}
}

func TestTooManyAttempts(t *testing.T) {
	f := start(t, nil)
	f.account("juliet")
	c := f.dial()
	c.open()
	for range 3 {
		c.send("<auth xmlns='%s' mechanism='PLAIN'>%s</auth>", nsSASL, plainData("juliet", "wrong"))
		if e := c.next(); e.Child(nsSASL, "not-authorized") == nil {
			t.Fatalf("%s", e.Bytes())
		}
	}
	c.streamError("policy-violation")
}

// TestUnknownUsersLookTheSame: the salt of an account that doesn't exist is
// always the same, and of the same length and cost as that of a real one.
func TestUnknownUsersLookTheSame(t *testing.T) {
	f := start(t, nil)
	f.account("juliet")
	first := func(user string) (salt, iterations string) {
		c := f.dial()
		c.open()
		c.send("<auth xmlns='%s' mechanism='SCRAM-SHA-256'>%s</auth>", nsSASL, b64("n,,n="+user+",r=abc"))
		parts := strings.Split(c.challenge(), ",")
		return parts[1], parts[2]
	}
	known, iterations := first("juliet")
	fake, fakeIterations := first("nobody")
	again, _ := first("nobody")
	other, _ := first("somebody")
	if fake != again || fake == other || len(fake) != len(known) || iterations != fakeIterations {
		t.Errorf("salts %q, %q, %q, %q; iterations %s and %s", known, fake, again, other, iterations, fakeIterations)
	}
}

func TestAccounts(t *testing.T) {
	f := start(t, nil)
	ctx := context.Background()
	a := f.s.c.Accounts
	j := jid.MustParse("juliet@test.example")
	for _, tt := range []struct{ jid, password, want string }{
		{"test.example", "x", "names no user"},
		{"juliet@other.example", "x", "the hosts are test.example"},
		{"juliet@test.example/balcony", "x", "without /balcony"},
		{"juliet@test.example", "", "empty"},
		{"juliet@test.example", "a\x00b", "characters"},
	} {
		if err := a.Add(ctx, jid.MustParse(tt.jid), tt.password, "test"); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("Add(%s): %v, want %q", tt.jid, err, tt.want)
		}
	}
	if err := a.SetPassword(ctx, j, "x", "test"); !errors.Is(err, ErrNoAccount) {
		t.Errorf("SetPassword: %v", err)
	}
	if err := a.Delete(ctx, j, "test"); !errors.Is(err, ErrNoAccount) {
		t.Errorf("Delete: %v", err)
	}
	if err := a.Add(ctx, j, "fl\u00fc\u00dfe \u2168", "test"); err != nil {
		t.Fatal(err)
	}
	if err := a.Add(ctx, j, "x", "test"); !errors.Is(err, ErrExists) {
		t.Errorf("Add again: %v", err)
	}
	// SASLprep folds IX, a single character, into two letters.
	if ok, err := f.s.verify(j.String(), "fl\u00fc\u00dfe IX"); !ok || err != nil {
		t.Errorf("prepared password: %v, %v", ok, err)
	}
	if err := a.SetPassword(ctx, j, "new", "test"); err != nil {
		t.Fatal(err)
	}
	if ok, _ := f.s.verify(j.String(), "fl\u00fc\u00dfe IX"); ok {
		t.Error("the old password still fits")
	}
	keys, err := f.s.c.Projections.Account(j.String())
	if err != nil || len(keys.GetScram()) != 2 || strings.Contains(keys.String(), "new") {
		t.Errorf("stored: %v, %v", keys, err)
	}
	if err := a.Delete(ctx, j, "test"); err != nil {
		t.Fatal(err)
	}
	if ok, err := a.Exists(j); ok || err != nil {
		t.Errorf("after Delete: %v, %v", ok, err)
	}
}

// TestStoredKeys checks our derivation against another one.
func TestStoredKeys(t *testing.T) {
	keys, err := deriveCredentials("pencil")
	if err != nil {
		t.Fatal(err)
	}
	for i, h := range hashes {
		client, err := h.scram.NewClient("user", "pencil", "")
		if err != nil {
			t.Fatal(err)
		}
		k := keys.Scram[i]
		want, err := client.GetStoredCredentialsWithError(scram.KeyFactors{Salt: string(k.Salt), Iters: int(k.Iterations)})
		if err != nil {
			t.Fatal(err)
		}
		if string(want.StoredKey) != string(k.StoredKey) || string(want.ServerKey) != string(k.ServerKey) || k.Iterations < 10000 {
			t.Errorf("%s: keys differ", h.mechanism)
		}
	}
}

func TestStreamFaultsBeforeLogin(t *testing.T) {
	f := start(t, nil)
	for _, tt := range []struct{ name, send, want string }{
		{"unknown host", strings.Replace(header, testHost, "other.example", 1), "host-unknown"},
		{"no host", strings.Replace(header, " to='test.example'", "", 1), "host-unknown"},
		{"bad namespace", strings.Replace(header, "http://etherx.jabber.org/streams", "urn:x", 1), "invalid-namespace"},
		{"no XML", "GET / HTTP/1.1\r\n\r\n<", "bad-format"},
		{"broken XML", "<stream:stream <", "not-well-formed"},
		{"old version", strings.Replace(header, " version='1.0' to", " version='0.9' to", 1), "unsupported-version"},
		{"stanza before login", header + "<message to='a@test.example'><body>x</body></message>", "not-authorized"},
		{"too much", header + strings.Repeat("<a>", 30000), "not-authorized"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := f.dial()
			c.t = t
			go io.WriteString(c.conn, tt.send)
			c.opened()
			c.streamError(tt.want)
		})
	}
}

// TestHeaderVariants: clients name themselves in some stream headers and not in
// others, and send whitespace where it does no harm.
func TestHeaderVariants(t *testing.T) {
	f := start(t, nil)
	f.account("juliet")
	withFrom := strings.Replace(header, " to=", " from='juliet@test.example' to=", 1)
	for i, headers := range [][2]string{{withFrom, header}, {header, withFrom}, {withFrom, withFrom}} {
		c := f.dial()
		c.send("%s", headers[0]+"\n")
		c.opened()
		c.next()
		c.send(" \n<auth xmlns='%s' mechanism='PLAIN'>%s</auth>", nsSASL, plainData("juliet", "secret-juliet"))
		if e := c.next(); !e.Is(nsSASL, "success") {
			t.Fatalf("%d: %s", i, e.Bytes())
		}
		c.send("%s", headers[1])
		c.opened()
		c.next()
		c.send("\n")
		c.bind("r")
		c.nothing("after login")
	}
}

func TestLoginTimeout(t *testing.T) {
	f := start(t, func(c *Config) { c.Limits.LoginTimeout = 50 * time.Millisecond })
	c := f.dial()
	c.open()
	c.streamError("connection-timeout")
}

// TestPipelined sends everything at once: nothing after the bind may be lost, nor
// be read before its time, and prefixes of the last header are known.
func TestPipelined(t *testing.T) {
	f := start(t, nil)
	f.account("juliet")
	c := f.dial()
	c.send("%s<auth xmlns='%s' mechanism='PLAIN'>%s</auth>%s"+
		"<c:iq type='set' id='bind'><bind xmlns='%s'><resource>r</resource></bind></c:iq>"+
		"<presence/><c:message id='m' to='juliet@test.example' type='chat'><c:body>x</c:body><u:mark/></c:message>"+
		"<iq type='get' id='q'><ping xmlns='urn:xmpp:ping'/></iq></stream:stream>",
		header, nsSASL, plainData("juliet", "secret-juliet"),
		strings.Replace(header, "<stream:stream", "<stream:stream xmlns:c='jabber:client' xmlns:u='urn:u'", 1), nsBind)
	c.opened()
	c.next()
	c.next()
	c.opened()
	for _, want := range []string{"features", "iq bind", "presence ", "message m", "iq q"} {
		e := c.next()
		if got := strings.TrimSpace(e.Local + " " + e.Attr("id")); got != strings.TrimSpace(want) {
			t.Fatalf("got %q (%s), want %q", got, e.Bytes(), want)
		}
		if e.Local == "message" && e.Child("urn:u", "mark") == nil {
			t.Errorf("a prefix of the header was not resolved: %s", e.Bytes())
		}
	}
	if _, err := c.r.Next(); err != io.EOF {
		t.Errorf("at the end: %v", err)
	}
}

// TestPipelinedStartTLS: what was sent in the clear behind <starttls/> must not
// count as sent under TLS.
func TestPipelinedStartTLS(t *testing.T) {
	f := start(t, func(c *Config) { c.AllowPlaintext = false })
	f.account("juliet")
	c := f.dial()
	c.open()
	c.send("<starttls xmlns='%s'/>%s<auth xmlns='%s' mechanism='PLAIN'>%s</auth>", nsTLS, header, nsSASL, plainData("juliet", "secret-juliet"))
	c.next()
	if err := tls.Client(c.conn, clientTLS()).Handshake(); err == nil {
		t.Fatal("the handshake succeeded on injected bytes")
	}
}

func TestBind(t *testing.T) {
	f := start(t, nil)
	f.account("juliet")
	a := f.dial().login("juliet", "")
	b := f.dial().login("juliet", strings.Repeat("x", 1024))
	if a.full == b.full || len(a.full) < 30 || len(b.full) != len(a.full) {
		t.Errorf("random resources: %q and %q", a.full, b.full)
	}
	c := f.dial().login("juliet", "balcony")
	d := f.dial().login("juliet", "balcony")
	c.streamError("conflict")
	if c.full != d.full {
		t.Errorf("bound %s and %s", c.full, d.full)
	}
	d.nothing("the new session works")
	if n := f.s.users.count(); n != 3 {
		t.Errorf("%d sessions", n)
	}
}

func TestCertificate(t *testing.T) {
	dir := t.TempDir()
	file := dir + "/c2s-self-signed.pem"
	first, err := selfSigned(file, []string{"a.example"})
	if err != nil {
		t.Fatal(err)
	}
	again, err := selfSigned(file, []string{"a.example"})
	if err != nil || string(again.Certificate[0]) != string(first.Certificate[0]) {
		t.Errorf("the certificate was not kept: %v", err)
	}
	other, err := selfSigned(file, []string{"a.example", "b.example"})
	if err != nil || string(other.Certificate[0]) == string(first.Certificate[0]) {
		t.Errorf("no new certificate for a new host: %v", err)
	}
	if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the key file: %v, %v", info.Mode(), err)
	}
	if _, err := loadCertificate(Config{Certificate: file}); err == nil {
		t.Error("a certificate without a key is no error")
	}
}
