package admin

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"connectrpc.com/connect"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/oklog/ulid/v2"
	"go.uber.org/zap"
	"google.golang.org/protobuf/types/known/timestamppb"
	"mellium.im/xmpp/jid"

	adminv1 "mamlog/admin/v1"
	"mamlog/disk"
	"mamlog/log"
)

// A backup is laid out as a data directory is, with the logs only, since all the
// rest is folded from them, and this file, which is written last:
//
//	main/log, stores/NAME/log, audit, backup.json
const backupFile = "backup.json"

// BackupOf says what a backup is of.
type BackupOf struct {
	Began  time.Time            `json:"began"`  // all that was acknowledged before is in it
	Stores map[string]ulid.ULID `json:"stores"` // by directory, the newest event that is in it for sure
}

// Backup copies all stores on disk while they are used. First what signs, then the
// messages, then main: whatever a signature or a message refers to is in the backup
// too, and nothing in it vouches for more than there is.
func (s *Service) Backup(ctx context.Context, r *connect.Request[adminv1.BackupRequest], stream *connect.ServerStream[adminv1.BackupResponse]) error {
	dir := r.Msg.GetDir()
	if !filepath.IsAbs(dir) {
		return connect.NewError(connect.CodeInvalidArgument, fmt.Errorf("%q is not an absolute path", dir))
	}
	if _, err := os.Lstat(dir); !errors.Is(err, fs.ErrNotExist) {
		if err == nil {
			err = fmt.Errorf("%s exists; a backup goes into a new directory", dir)
		}
		return connect.NewError(connect.CodeFailedPrecondition, err)
	}
	if !s.maintenance.TryLock() {
		return errBusy
	}
	defer s.maintenance.Unlock()
	s.running.Add(1)
	defer s.running.Done()
	if err := s.Archive.NoteRead(ctx, jid.JID{}, Caller(ctx), "backup to "+dir); err != nil {
		return err
	}
	s.Logger.Info("backup", zap.String("dir", dir), zap.String("actor", Caller(ctx)))
	if err := s.backup(ctx, dir, stream.Send); err != nil {
		// Half a backup would only take space, which may be what there wasn't.
		return errors.Join(fmt.Errorf("back up to %s: %w", dir, err), os.RemoveAll(dir))
	}
	return nil
}

func (s *Service) backup(ctx context.Context, dir string, done func(*adminv1.BackupResponse) error) error {
	of := BackupOf{Began: time.Now().UTC(), Stores: make(map[string]ulid.ULID)}
	if err := disk.MakeDir(vfs.Default, dir, 0o700); err != nil {
		return err
	}
	s.KeepCheckpoint()
	if err := s.Book.CopyTo(filepath.Join(dir, "audit")); err != nil {
		return err
	}
	names := slices.SortedFunc(maps.Keys(s.Stores), func(a, b string) int {
		if c := cmp.Compare(s.rank(a), s.rank(b)); c != 0 {
			return c
		}
		return strings.Compare(a, b)
	})
	for _, name := range names {
		if err := ctx.Err(); err != nil {
			return err
		}
		st := s.Stores[name]
		if st.InMemory {
			if err := done(&adminv1.BackupResponse{Store: name, Skipped: true}); err != nil {
				return err
			}
			continue
		}
		in := filepath.Join(dir, st.Dir)
		if err := disk.MakeDir(vfs.Default, in, 0o700); err != nil {
			return err
		}
		last, err := st.Log.Backup(filepath.Join(in, "log"))
		if err != nil {
			return err
		}
		of.Stores[st.Dir] = last
		m := &adminv1.BackupResponse{Store: name}
		if last != (ulid.ULID{}) {
			m.Last, m.LastAt = last.String(), timestamppb.New(log.IDTime(last))
		}
		if err := done(m); err != nil {
			return err
		}
	}
	b, err := json.MarshalIndent(of, "", "  ")
	if err != nil {
		return err
	}
	f, err := os.OpenFile(filepath.Join(dir, backupFile), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(append(b, '\n'))
	return errors.Join(err, f.Sync(), f.Close(), disk.SyncDir(vfs.Default, dir))
}

// rank puts the main store last.
func (s *Service) rank(name string) int {
	if s.Stores[name].Log == s.MainLog {
		return 1
	}
	return 0
}

// ReadBackup tells what the backup in dir is of.
func ReadBackup(dir string) (of BackupOf, err error) {
	b, err := os.ReadFile(filepath.Join(dir, backupFile))
	if errors.Is(err, fs.ErrNotExist) {
		return of, fmt.Errorf("there is no complete backup in %s: it has no %s", dir, backupFile)
	}
	if err != nil {
		return of, err
	}
	if err := json.Unmarshal(b, &of); err != nil {
		return of, fmt.Errorf("%s: %w", filepath.Join(dir, backupFile), err)
	}
	return of, nil
}
