package c2s

import (
	"crypto/hmac"
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"hash"

	"github.com/xdg-go/scram"
	"github.com/xdg-go/stringprep"

	"mamlog/log"
)

// scramIterations is what new passwords are hashed with. RFC 7677 section 4 asks
// for 4096 at least; each login of a client costs it this many hashes.
const scramIterations = 10000

// saltBytes is the length of salts; real and invented ones must look the same.
const saltBytes = 16

// hashes are the SCRAM mechanisms, the stronger first.
var hashes = []struct {
	mechanism string
	new       func() hash.Hash
	scram     scram.HashGeneratorFcn
}{
	{"SCRAM-SHA-256", sha256.New, scram.SHA256},
	{"SCRAM-SHA-1", sha1.New, scram.SHA1},
}

// preparePassword is SASLprep (RFC 4013), which RFC 5802 section 2.2 asks of
// SCRAM clients: the server must arrive at the same bytes.
func preparePassword(password string) (string, error) {
	if password == "" {
		return "", errors.New("the password is empty: give at least one character")
	}
	p, err := stringprep.SASLprep.Prepare(password)
	if err != nil {
		// The library's error quotes the password.
		return "", errors.New("the password has characters that can't be part of one: control characters, private or unassigned ones, or a mix of right-to-left and left-to-right (RFC 4013)")
	}
	if p == "" {
		return "", errors.New("the password has only characters that are ignored: give at least one other")
	}
	return p, nil
}

// deriveCredentials makes what is stored of a password (RFC 5802 section 3).
func deriveCredentials(password string) (*log.Credentials, error) {
	p, err := preparePassword(password)
	if err != nil {
		return nil, err
	}
	c := new(log.Credentials)
	for _, h := range hashes {
		salt := make([]byte, saltBytes)
		rand.Read(salt)
		stored, server, err := scramKeys(h.new, p, salt, scramIterations)
		if err != nil {
			return nil, err
		}
		c.Scram = append(c.Scram, &log.Credentials_Scram{
			Mechanism: h.mechanism, Salt: salt, Iterations: scramIterations,
			StoredKey: stored, ServerKey: server,
		})
	}
	return c, nil
}

func scramKeys(h func() hash.Hash, prepared string, salt []byte, iterations int) (stored, server []byte, err error) {
	salted, err := pbkdf2.Key(h, prepared, salt, iterations, h().Size())
	if err != nil {
		return nil, nil, fmt.Errorf("derive keys: %w", err)
	}
	mac := func(text string) []byte {
		m := hmac.New(h, salted)
		m.Write([]byte(text))
		return m.Sum(nil)
	}
	sum := h()
	sum.Write(mac("Client Key"))
	return sum.Sum(nil), mac("Server Key"), nil
}

// lookUp returns the keys of an account for one mechanism. For one that doesn't
// exist it makes up keys that no password fits, always with the same salt, so
// that nobody learns who has an account.
func (s *Server) lookUp(bare, mechanism string) (*log.Credentials_Scram, error) {
	c, err := s.c.Projections.Account(bare)
	if err != nil {
		return nil, fmt.Errorf("look up the account: %w", err)
	}
	for _, k := range c.GetScram() {
		if k.Mechanism == mechanism {
			return k, nil
		}
	}
	m := hmac.New(sha256.New, s.fakeSalts)
	m.Write([]byte(mechanism + "\x00" + bare))
	size := sha256.Size
	if mechanism == "SCRAM-SHA-1" {
		size = sha1.Size
	}
	k := &log.Credentials_Scram{
		Mechanism: mechanism, Salt: m.Sum(nil)[:saltBytes], Iterations: scramIterations,
		StoredKey: make([]byte, size), ServerKey: make([]byte, size),
	}
	rand.Read(k.StoredKey)
	rand.Read(k.ServerKey)
	return k, nil
}

// verify checks a password that was sent in the clear. A wrong one takes as long
// as one for an account that doesn't exist.
func (s *Server) verify(bare, password string) (bool, error) {
	k, err := s.lookUp(bare, "SCRAM-SHA-256")
	if err != nil {
		return false, err
	}
	p, err := preparePassword(password)
	if err != nil {
		return false, nil
	}
	stored, _, err := scramKeys(sha256.New, p, k.Salt, int(k.Iterations))
	if err != nil {
		return false, err
	}
	return subtle.ConstantTimeCompare(stored, k.StoredKey) == 1, nil
}
