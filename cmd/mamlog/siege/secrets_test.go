package siege

import (
	"bufio"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha1"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"io"
	"io/fs"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/xdg-go/scram"

	"mamlog/cmd/mamlog/conformance"
)

// TestSecretsAreNotLogged does what needs a secret, rightly and wrongly, with the
// log at its most talkative, and looks for all of them in it and in the metrics.
func TestSecretsAreNotLogged(t *testing.T) {
	const linkSecret, body, wrong = "the-secret-of-the-link", "the-body-of-a-message", "the-wrong-password"
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	client := freeAddr(t)
	c, err := conformance.NewArchive(t.TempDir(), fmt.Sprintf(`hosts: [test.example, linked.example]
c2s: {listen: %q, allow_plaintext: true}
log_level: debug
links: [{server: %q, domain: archive.linked.example, secret: %s, hosts: [linked.example]}]
`, client, l.Addr(), linkSecret))
	if err != nil {
		t.Fatal(err)
	}
	s := begin(t, c)
	s.Addr = client
	s.users("juliet", "romeo")
	secrets := map[string]string{
		"a password": conformance.Password, "a wrong password": wrong, "a link's secret": linkSecret, "a body": body,
	}
	plain := func(name, user, password string) string {
		b := base64.StdEncoding.EncodeToString([]byte("\x00" + user + "\x00" + password))
		secrets["PLAIN's message, "+name] = b
		return "<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>" + b + "</auth>"
	}

	// The link: the first connection is refused, the second served.
	for try := range 2 {
		conn, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if try == 1 {
			link, err := conformance.AcceptComponent(conn)
			if err != nil {
				t.Fatal(err)
			}
			r := &realm{server: s}
			r.hello(link, "linked.example", "accounts")
			r.request(link, "linked.example", "set", appendOf("in", "alice@linked.example", body))
			r.request(link, "linked.example", "set", "<batch xmlns='"+nsAttach+"'><append><message><body>"+body+"</body></message></append></batch>")
			link.Send("<message from='linked.example'><body>" + body + "</unclosed>")
			continue
		}
		const id = "stream-id-of-the-link"
		fmt.Fprintf(conn, "<stream:stream xmlns='jabber:component:accept' xmlns:stream='http://etherx.jabber.org/streams' id='%s'>", id)
		sum := sha1.Sum([]byte(id + linkSecret))
		secrets["the link's handshake"] = hex.EncodeToString(sum[:])
		io.WriteString(conn, "<stream:error><not-authorized xmlns='urn:ietf:params:xml:ns:xmpp-streams'/></stream:error></stream:stream>")
	}

	// Logins that fail, in every way.
	login := func(send ...string) {
		p, err := s.tcp("")
		if err != nil {
			t.Fatal(err)
		}
		p.send(streamHeader + strings.Join(send, "") + "</stream:stream>")
		rest(p)
		p.close()
	}
	login(plain("wrong", "juliet", wrong), plain("unknown user", "nobody", wrong), plain("with a NUL", "juliet", wrong+"\x00"))
	login("<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>" + conformance.Password + "</auth>")
	login(plain("cut off", "juliet", conformance.Password)[:80])
	for name, password := range map[string]string{"right": conformance.Password, "wrong": wrong} {
		for secret, value := range loginSCRAM(t, s.Addr, password) {
			secrets[secret+", "+name] = value
		}
	}

	// Logins that succeed, messages that are delivered, refused and damaged.
	juliet := s.dial("juliet", "balcony")
	s.dial("romeo", "garden")
	for _, to := range []string{"romeo@test.example", "nobody@test.example", "eve@elsewhere.example", "not a@n address", "romeo@test.example/nowhere"} {
		juliet.Send("<message type='chat' to='" + to + "'><body>" + body + "</body></message>")
	}
	for range 3 { // to those who aren't there
		if e, err := juliet.Next(); err != nil || e.Attr("type") != "error" {
			t.Fatalf("%s, %v", e, err)
		}
	}
	juliet.Send("<message to='romeo@test.example'><body>" + body + "</broken>")
	for err := error(nil); err == nil; {
		_, err = juliet.Next()
	}
	for _, args := range [][]string{{"query", "romeo@test.example"}, {"prefs", "set", "romeo@test.example", "--default", "never"}} {
		if _, err := s.Run(t.Context(), "", args...); err != nil {
			t.Error(err)
		}
	}
	const newPassword = "another-password-than-before"
	secrets["a new password"] = newPassword
	if _, err := s.Run(t.Context(), newPassword+"\n", "user", "passwd", "juliet@test.example"); err != nil {
		t.Error(err)
	}
	var metrics strings.Builder
	for name := range s.metrics() {
		metrics.WriteString(name)
	}
	if err := s.Stop(); err != nil {
		t.Fatal(err)
	}
	log := s.Log()
	if !strings.Contains(log, `"level":"debug"`) || !strings.Contains(log, "authentication failed") {
		t.Fatal("the log does not say what it should: this test tests nothing")
	}
	for what, value := range secrets {
		if len(value) < 8 {
			t.Fatalf("%s is too short to be looked for: %q", what, value)
		}
		if strings.Contains(log, value) {
			t.Errorf("%s is in the log: %q", what, value)
		}
		if strings.Contains(metrics.String(), value) {
			t.Errorf("%s is in the metrics", what)
		}
	}
	conformance.Figures(t, "%d secrets looked for in %d bytes of log", len(secrets), len(log))
}

// loginSCRAM logs in, and returns what was said that nobody else should know.
func loginSCRAM(t *testing.T, addr, password string) map[string]string {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(patience))
	in := bufio.NewReader(conn)
	until := func(tag string) string {
		var all strings.Builder
		for !strings.Contains(all.String(), tag) {
			b, err := in.ReadByte()
			if err != nil {
				t.Fatalf("waiting for %s: %v in %s", tag, err, all.String())
			}
			all.WriteByte(b)
		}
		return all.String()
	}
	client, err := scram.SHA256.NewClient("juliet", password, "")
	if err != nil {
		t.Fatal(err)
	}
	c := client.NewConversation()
	first, err := c.Step("")
	if err != nil {
		t.Fatal(err)
	}
	encode := func(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }
	io.WriteString(conn, streamHeader)
	until("</stream:features>")
	io.WriteString(conn, "<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='SCRAM-SHA-256'>"+encode(first)+"</auth>")
	_, challenge, _ := strings.Cut(until("</challenge>"), "<challenge xmlns='urn:ietf:params:xml:ns:xmpp-sasl'>")
	b, err := base64.StdEncoding.DecodeString(strings.TrimSuffix(challenge, "</challenge>"))
	if err != nil {
		t.Fatal(err)
	}
	final, err := c.Step(string(b))
	if err != nil {
		t.Fatal(err)
	}
	io.WriteString(conn, "<response xmlns='urn:ietf:params:xml:ns:xmpp-sasl'>"+encode(final)+"</response>")
	until(map[bool]string{true: "</success>", false: "</failure>"}[password == conformance.Password])
	_, proof, _ := strings.Cut(final, ",p=")
	_, salt, _ := strings.Cut(string(b), ",s=")
	salt, _, _ = strings.Cut(salt, ",")
	_, nonce, _ := strings.Cut(first, ",r=")
	return map[string]string{
		"SCRAM's proof": proof, "SCRAM's salt": salt, "SCRAM's nonce": nonce, "SCRAM's first message": encode(first), "SCRAM's final message": encode(final), "SCRAM's challenge": string(b),
	}
}

// TestFileModes: nobody but the server's user can read anything that it makes, even
// where the umask takes nothing away.
func TestFileModes(t *testing.T) {
	c, err := conformance.NewServer(t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	old := syscall.Umask(0) // the processes inherit it
	defer syscall.Umask(old)
	s := begin(t, c)
	s.users("juliet", "romeo")
	juliet, romeo := s.dial("juliet", "balcony"), s.dial("romeo", "garden")
	if err := juliet.Send("<message to='romeo@test.example' type='chat'><body>hi</body></message>"); err != nil {
		t.Fatal(err)
	}
	if _, err := romeo.Next(); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Run(t.Context(), "", "rebuild"); err != nil {
		t.Error(err)
	}
	walk := func() (n int) {
		t.Helper()
		err := filepath.WalkDir(filepath.Join(s.Dir, "data"), func(path string, d fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			info, err := d.Info()
			if err != nil {
				return err
			}
			want := fs.FileMode(0o600)
			if d.IsDir() {
				want = 0o700
			}
			if n++; info.Mode().Perm() != want {
				t.Errorf("%s has the mode %04o, want %04o", path, info.Mode().Perm(), want)
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	n := walk()
	if err := s.Stop(); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Run(t.Context(), "", "check"); err != nil { // without a server it opens the stores itself
		t.Error(err)
	}
	if n < 10 || walk() < 10 {
		t.Errorf("only %d files", n)
	}
}

// TestSIGHUP: the signal, and nothing else, brings a new certificate into use for
// new connections; a bad one changes nothing and is told of.
func TestSIGHUP(t *testing.T) {
	dir := t.TempDir()
	cert, key := filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	first := writeCertificate(t, cert, key)
	addr := freeAddr(t)
	c, err := conformance.NewArchive(t.TempDir(), fmt.Sprintf("hosts: [test.example]\nc2s: {listen: %q, certificate: %s, key: %s}\n", addr, cert, key))
	if err != nil {
		t.Fatal(err)
	}
	s := begin(t, c)
	s.Addr = addr
	s.users("juliet")
	open, err := conformance.Dial(t.Context(), conformance.DialOptions{Addr: addr, Domain: "test.example", User: "juliet", Password: conformance.Password, Resource: "open", StartTLS: true})
	if err != nil {
		t.Fatal(err)
	}
	defer open.Drop()
	hangUp := func(word string) {
		t.Helper()
		before := strings.Count(s.Log(), word)
		if err := s.Signal(syscall.SIGHUP); err != nil {
			t.Fatal(err)
		}
		for end := time.Now().Add(patience); strings.Count(s.Log(), word) == before; time.Sleep(5 * time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("the log does not say %q", word)
			}
		}
	}
	if got := serialOf(t, addr, 0); got != first {
		t.Errorf("the certificate is %s, want %s", got, first)
	}
	second := writeCertificate(t, cert, key)
	if got := serialOf(t, addr, 0); got != first {
		t.Errorf("without a signal the certificate is %s, want %s", got, first)
	}
	hangUp("the certificate was reloaded")
	if got := serialOf(t, addr, 0); got != second {
		t.Errorf("after SIGHUP the certificate is %s, want %s", got, second)
	}
	for name, b := range map[string]string{"nonsense": "nonsense", "nothing": "", "half a file": "-----BEGIN CERTIFICATE-----\nMIIB"} {
		if err := os.WriteFile(cert, []byte(b), 0o600); err != nil {
			t.Fatal(err)
		}
		hangUp("the one before stays in use")
		if got := serialOf(t, addr, 0); got != second {
			t.Errorf("after %s the certificate is %s, want %s", name, got, second)
		}
	}
	other := filepath.Join(dir, "other.pem") // a certificate with another's key
	writeCertificate(t, cert, other)
	hangUp("the one before stays in use")
	if got := serialOf(t, addr, tls.VersionTLS12); got != second {
		t.Errorf("after a certificate with another's key it is %s, want %s", got, second)
	}
	if got := serialOf(t, addr, tls.VersionTLS11); got != "" {
		t.Error("TLS 1.1 is spoken")
	}
	if _, err := open.Call("get", "<ping xmlns='urn:xmpp:ping'/>"); err != nil {
		t.Errorf("who was connected before: %v", err)
	}
}

// writeCertificate makes one, and returns its serial number.
func writeCertificate(t *testing.T, certFile, keyFile string) string {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	serial, err := rand.Int(rand.Reader, big.NewInt(1<<62))
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{SerialNumber: serial, DNSNames: []string{"test.example"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, c, c, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	for file, block := range map[string]*pem.Block{certFile: {Type: "CERTIFICATE", Bytes: der}, keyFile: {Type: "PRIVATE KEY", Bytes: keyDER}} {
		if err := os.WriteFile(file, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return serial.String()
}

// serialOf is the serial number of the certificate that is shown after STARTTLS; ""
// if a version of at most that is not spoken. 0: any version.
func serialOf(t *testing.T, addr string, version uint16) string {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(patience))
	io.WriteString(conn, streamHeader)
	read := func(tag string) {
		var all strings.Builder
		for b := make([]byte, 1); !strings.Contains(all.String(), tag); all.Write(b) {
			if _, err := conn.Read(b); err != nil {
				t.Fatalf("waiting for %s: %v", tag, err)
			}
		}
	}
	read("</stream:features>")
	io.WriteString(conn, "<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>")
	read("<proceed")
	read("/>")
	c := tls.Client(conn, &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS10, MaxVersion: version})
	if err := c.Handshake(); err != nil {
		if version == 0 || version >= tls.VersionTLS12 {
			t.Fatal(err)
		}
		return ""
	}
	return c.ConnectionState().PeerCertificates[0].SerialNumber.String()
}
