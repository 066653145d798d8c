package c2s

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/net/idna"
)

// newTLS is for both listeners: TLS 1.2 and 1.3 with Go's choice of ciphers, which
// all have forward secrecy.
func (s *Server) newTLS() *tls.Config {
	return &tls.Config{
		MinVersion:     tls.VersionTLS12,
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return s.certificate.Load(), nil },
	}
}

// ReloadCertificate reads the certificate and its key again, for connections that
// begin from now on. With an error the one that was in use stays in use.
func (s *Server) ReloadCertificate() error {
	cert, err := loadCertificate(s.c)
	if err == nil {
		s.certificate.Store(&cert)
	}
	return err
}

// loadCertificate returns the certificate that c names, or a self-signed one.
func loadCertificate(c Config) (cert tls.Certificate, err error) {
	if (c.Certificate == "") != (c.Key == "") {
		return cert, errors.New("c2s: a certificate needs its key: set both certificate and key, or neither for a self-signed one")
	}
	if c.Certificate != "" {
		cert, err = tls.LoadX509KeyPair(c.Certificate, c.Key)
	} else {
		cert, err = selfSigned(filepath.Join(c.DataDir, "c2s-self-signed.pem"), c.Hosts)
	}
	if err != nil {
		return cert, fmt.Errorf("c2s: load the certificate: %w", err)
	}
	return cert, nil
}

// selfSigned reads the certificate and key that an earlier start left in file,
// and makes new ones where it is missing, about to end, or not for these hosts.
func selfSigned(file string, hosts []string) (tls.Certificate, error) {
	if b, err := os.ReadFile(file); err == nil {
		if cert, err := tls.X509KeyPair(b, b); err == nil && fits(cert, hosts) {
			return cert, nil
		}
	} else if !errors.Is(err, os.ErrNotExist) {
		return tls.Certificate{}, err
	}
	b, err := makeCertificate(hosts)
	if err != nil {
		return tls.Certificate{}, err
	}
	if err := writeSecret(file, b); err != nil {
		return tls.Certificate{}, err
	}
	return tls.X509KeyPair(b, b)
}

func fits(cert tls.Certificate, hosts []string) bool {
	leaf, err := x509.ParseCertificate(cert.Certificate[0])
	if err != nil || time.Now().Add(30*24*time.Hour).After(leaf.NotAfter) {
		return false
	}
	for _, h := range hosts {
		if name, err := idna.Lookup.ToASCII(h); err != nil || leaf.VerifyHostname(name) != nil {
			return false
		}
	}
	return true
}

func makeCertificate(hosts []string) ([]byte, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, err
	}
	t := &x509.Certificate{
		SerialNumber:          serial,
		Subject:               pkix.Name{CommonName: hosts[0], Organization: []string{"mamlog, self-signed"}},
		NotBefore:             time.Now().Add(-time.Hour),
		NotAfter:              time.Now().AddDate(5, 0, 0),
		KeyUsage:              x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		IsCA:                  true, // so that a client can be told to trust just this file
		BasicConstraintsValid: true,
		IPAddresses:           []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback},
	}
	for _, h := range hosts {
		if ip := net.ParseIP(h); ip != nil {
			t.IPAddresses = append(t.IPAddresses, ip)
		} else {
			ascii, err := idna.Lookup.ToASCII(h) // certificates know no other names
			if err != nil {
				return nil, fmt.Errorf("the host %q can't stand in a certificate: %w", h, err)
			}
			t.DNSNames = append(t.DNSNames, ascii)
		}
	}
	der, err := x509.CreateCertificate(rand.Reader, t, t, &key.PublicKey, key)
	if err != nil {
		return nil, err
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	b := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	return append(b, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER})...), nil
}

// writeSecret replaces file by one that only its owner can read.
func writeSecret(file string, b []byte) error {
	f, err := os.CreateTemp(filepath.Dir(file), ".c2s-*") // made with mode 0600
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), file)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return nil
}
