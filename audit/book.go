package audit

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/mod/sumdb/note"
)

// Book is the directory of the signing key and of the checkpoints that were made:
//
//	key                              the private key, mode 0600, as note.GenerateKey writes it
//	2026-11-27T04:10:00.000Z.note    one signed checkpoint, named by its time
//
// It lies apart from the stores, so that a checkpoint is not changed with what it
// vouches for; what is meant to hold against this machine's operator has to be
// copied off it.
type Book struct {
	dir      string
	key      string // the public one
	signer   note.Signer
	verifier note.Verifier
}

const (
	keyFile    = "key"
	noteSuffix = ".note"
)

// OpenBook opens the book in dir. Where there is no key it makes one with the
// given name, which ends up in every signature.
func OpenBook(dir, name string) (_ *Book, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("open the audit key: %w", err)
		}
	}()
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	b := &Book{dir: dir}
	path := filepath.Join(dir, keyFile)
	secret, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		made, _, err := note.GenerateKey(rand.Reader, name)
		if err != nil {
			return nil, err
		}
		secret = []byte(made + "\n")
		if err := b.write(keyFile, secret); err != nil {
			return nil, err
		}
	} else if err != nil {
		return nil, err
	}
	if info, err := os.Stat(path); err != nil {
		return nil, err
	} else if mode := info.Mode().Perm(); mode&0o077 != 0 {
		return nil, fmt.Errorf("%s can be read by others (its mode is %04o), and whoever has it can sign in your name; make it 0600", path, mode)
	}
	line := strings.TrimSpace(string(secret))
	if b.signer, err = note.NewSigner(line); err != nil {
		return nil, fmt.Errorf("%s holds no signing key: %w", path, err)
	}
	if b.key, err = verifierKey(line); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	b.verifier, err = note.NewVerifier(b.key)
	return b, err
}

// Key is the public key, as note.NewVerifier takes it.
func (b *Book) Key() string { return b.key }

// Signer signs with the private key.
func (b *Book) Signer() note.Signer { return b.signer }

// Verifier verifies what Signer signed.
func (b *Book) Verifier() note.Verifier { return b.verifier }

// Keep stores a signed checkpoint, durably.
func (b *Book) Keep(c Checkpoint, signed []byte) error {
	if err := b.write(c.Time.UTC().Format(timeLayout)+noteSuffix, signed); err != nil {
		return fmt.Errorf("keep a checkpoint: %w", err)
	}
	return nil
}

// Kept is one checkpoint of the book; Err tells why it can't be believed.
type Kept struct {
	File       string
	Checkpoint Checkpoint
	Err        error

	signed []byte
}

// Checkpoints returns all that were kept, oldest first.
func (b *Book) Checkpoints() ([]Kept, error) {
	names, err := b.names()
	if err != nil {
		return nil, err
	}
	kept := make([]Kept, len(names))
	for i, name := range names {
		kept[i] = b.read(name)
	}
	return kept, nil
}

// Newest returns the newest checkpoint and its note; nil if there is none, or none
// that can be believed.
func (b *Book) Newest() (c Checkpoint, signed []byte, err error) {
	names, err := b.names()
	if err != nil || len(names) == 0 {
		return c, nil, err
	}
	k := b.read(names[len(names)-1])
	if k.Err != nil {
		return c, nil, nil
	}
	return k.Checkpoint, k.signed, nil
}

func (b *Book) read(name string) Kept {
	k := Kept{File: filepath.Join(b.dir, name)}
	if k.signed, k.Err = os.ReadFile(k.File); k.Err == nil {
		k.Checkpoint, k.Err = OpenCheckpoint(k.signed, b.verifier)
	}
	return k
}

// names are those of the checkpoints, in the order of their times.
func (b *Book) names() (names []string, err error) {
	entries, err := os.ReadDir(b.dir)
	if err != nil {
		return nil, fmt.Errorf("list the checkpoints: %w", err)
	}
	for _, e := range entries {
		if strings.HasSuffix(e.Name(), noteSuffix) {
			names = append(names, e.Name())
		}
	}
	slices.Sort(names)
	return names, nil
}

// CopyTo copies the key and the checkpoints to a new directory, durably.
func (b *Book) CopyTo(dir string) error {
	names, err := b.names()
	if err != nil {
		return err
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	to := &Book{dir: dir}
	for _, name := range append(names, keyFile) {
		content, err := os.ReadFile(filepath.Join(b.dir, name))
		if err == nil {
			err = to.write(name, content)
		}
		if err != nil {
			return fmt.Errorf("copy the audit history: %w", err)
		}
	}
	return nil
}

// write makes a file that is there as a whole or not at all.
func (b *Book) write(name string, content []byte) error {
	f, err := os.CreateTemp(b.dir, ".new-*") // mode 0600
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // gone if all went well
	_, err = f.Write(content)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := os.Rename(f.Name(), filepath.Join(b.dir, name)); err != nil {
		return err
	}
	d, err := os.Open(b.dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// verifierKey is the public key of a private one.
func verifierKey(secret string) (string, error) {
	fields := strings.SplitN(secret, "+", 5) // PRIVATE+KEY+name+hash+key
	if len(fields) != 5 {
		return "", errors.New("it holds no signing key")
	}
	seed, err := base64.StdEncoding.DecodeString(fields[4])
	if err != nil || len(seed) != 1+ed25519.SeedSize { // the algorithm first
		return "", errors.New("it holds no signing key")
	}
	return note.NewEd25519VerifierKey(fields[2], ed25519.NewKeyFromSeed(seed[1:]).Public().(ed25519.PublicKey))
}
