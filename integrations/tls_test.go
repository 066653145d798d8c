package integrations

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"mamlog/cmd/mamlog/conformance"
	"mamlog/integrations/peers"
)

// certificateFiles makes a certificate for a name: server is that with its key, ca is
// what those need who trust it.
func certificateFiles(t *testing.T, name string) (server, ca string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, DNSNames: []string{name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, c, c, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	public := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	dir := t.TempDir()
	server, ca = filepath.Join(dir, "server.pem"), filepath.Join(dir, "ca.pem")
	if err := os.WriteFile(server, append(slices.Clone(public), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private})...), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(ca, public, 0o600); err != nil {
		t.Fatal(err)
	}
	return server, ca
}

// TestLinkOverTLS: ejabberd's component listener with tls, which Prosody's does not
// have. The link comes back after a cut and after the end of the server, and a
// certificate of somebody else is not trusted.
func TestLinkOverTLS(t *testing.T) {
	t.Parallel()
	k := kinds[slices.IndexFunc(kinds, func(k kind) bool { return k.name == "ejabberd" })]
	conformance.NeedDebian(t, k.packages...)
	const name = "link.example"
	certificate, ca := certificateFiles(t, name)
	s := ownSite(t, k, siteOptions{
		proxied: true, link: fmt.Sprintf("tls: true, ca: %q, server_name: %s", ca, name),
		server: peers.Options{ComponentCertificate: certificate},
	})
	if bot, err := conformance.DialComponent(t.Context(), s.ComponentAddr, s.ArchiveHost, s.Secret); err == nil {
		bot.Close()
		t.Fatal("the listener speaks without TLS")
	}

	p := s.pair(t, s.Host, "tls")
	want := bodies(p.say(t, "before", 20))
	if err := s.link.cut(); err != nil {
		t.Fatal(err)
	}
	untilError(t, p.juliet)
	want = append(want, bodies(p.say(t, "meanwhile", 20))...)
	if err := s.link.mend(); err != nil {
		t.Fatal(err)
	}
	p.drain(t)
	want = append(want, bodies(p.say(t, "after", 20))...)

	if err := errors.Join(s.Stop(), s.Start(t.Context()), s.untilAnswers(t.Context(), s.Host)); err != nil {
		t.Fatal(err)
	}
	juliet := s.login(t, userOf(p.juliet), "again")
	got := bodies(archiveOf(t, juliet, ""))
	got = slices.DeleteFunc(got, func(b string) bool { return strings.HasPrefix(b, "drained") })
	if !slices.Equal(got, want) {
		t.Errorf("archived is %q, want %q", got, want)
	}

	// The same link, to who trusts another authority.
	if err := s.archive.Stop(); err != nil {
		t.Fatal(err)
	}
	_, other := certificateFiles(t, name)
	config, err := os.ReadFile(s.archive.Config)
	if err == nil {
		err = os.WriteFile(s.archive.Config, []byte(strings.Replace(string(config), ca, other, 1)), 0o600)
	}
	if err == nil {
		err = s.archive.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(patience); ; {
		out, err := s.archive.Run(t.Context(), "", "links")
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(out), "certificate is not accepted") {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("a certificate that nobody vouches for: %s", out)
		}
		time.Sleep(20 * time.Millisecond) // until the next look
	}
}
