package projections

import (
	"errors"
	"fmt"
	"iter"
	"strings"

	"github.com/cockroachdb/pebble/v2"
	"google.golang.org/protobuf/proto"

	"mamlog/log"
)

// accountKey sorts accounts by host.
func accountKey(owner string) []byte {
	local, host, _ := strings.Cut(owner, "@")
	return ownedKey(kindAccount, host, []byte(local)...)
}

func (w *writer) account(rec log.Record, a *log.AccountChanged) error {
	if a.GetCredentials() != nil {
		return w.put(accountKey(a.GetOwner()), a.GetCredentials())
	}
	w.changed = append(w.changed, a.GetOwner())
	if err := w.batch.Delete(accountKey(a.GetOwner()), nil); err != nil {
		return err
	}
	if err := w.batch.Delete(append([]byte{kindRetention}, a.GetOwner()...), nil); err != nil {
		return err
	}
	prefix := ownedKey(kindRoster, a.GetOwner())
	if err := w.batch.DeleteRange(prefix, end(prefix), nil); err != nil {
		return err
	}
	return w.batch.Set(append([]byte{kindDeleted}, a.GetOwner()...), rec.ID[:], nil)
}

// Account returns the credentials of an account, nil if there is no such one.
func (s *Store) Account(owner string) (c *log.Credentials, err error) {
	err = s.read(func(r *rows) error {
		v, err := r.get(accountKey(owner))
		if errors.Is(err, pebble.ErrNotFound) {
			return nil
		}
		if err != nil {
			return err
		}
		c = new(log.Credentials)
		return proto.Unmarshal(v, c)
	})
	if err != nil {
		return nil, fmt.Errorf("read the account %s: %w", owner, err)
	}
	return c, nil
}

// Accounts yields the bare JIDs of the accounts of a host, or with "" of all, in
// order. It stops at the first error, which it yields.
func (s *Store) Accounts(host string) iter.Seq2[string, error] {
	prefix := []byte{kindAccount}
	if host != "" {
		prefix = ownedKey(kindAccount, host)
	}
	return func(yield func(string, error) bool) {
		for kv, err := range s.under(prefix) {
			if err != nil {
				yield("", fmt.Errorf("list accounts: %w", err))
				return
			}
			host, local, _ := strings.Cut(string(kv.key[1:]), "\x00")
			if !yield(local+"@"+host, nil) {
				return
			}
		}
	}
}
