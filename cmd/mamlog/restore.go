package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/oklog/ulid/v2"
	"github.com/spf13/cobra"

	"mamlog/admin"
	"mamlog/disk"
	"mamlog/log"
)

func newRestoreCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "restore DIR",
		Short: "Make the data directory anew from a backup, and check it",
		Long: `Copy the backup in DIR to data_dir, which must hold no stores, make the projections
from the logs, and check everything as 'mamlog check' does. The backup is only read. No
server may run on data_dir. If this is interrupted, delete data_dir and begin anew.

The restored archive is that of the backup: of what came later nothing is there, which
clients may still have, and a checkpoint of the audit history that was signed later, and
kept elsewhere, rightly does not verify against it.`,
		Example: "  mamlog restore /var/backups/mamlog-2026-11-27",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := a.loadConfig()
			if err != nil {
				return err
			}
			if err := restore(args[0], c.DataDir); err != nil {
				return &failure{exitFailed, fmt.Errorf("restore %s: %w", args[0], err)}
			}
			return a.check(cmd.Context(), "")
		},
	}
}

// restore copies the backup to dataDir. The main store comes last: without it there
// is nothing that a command would open.
func restore(backup, dataDir string) error {
	of, err := admin.ReadBackup(backup)
	if err != nil {
		return err
	}
	parts := append(slices.Sorted(maps.Keys(of.Stores)), "audit")
	main := slices.Index(parts, "main")
	if main < 0 {
		return errors.New("it has no main store")
	}
	parts = append(slices.Delete(parts, main, main+1), "main")
	for _, p := range parts {
		if !filepath.IsLocal(p) {
			return fmt.Errorf("%q is no directory of a backup", p)
		}
		if _, err := os.Lstat(filepath.Join(dataDir, p)); !errors.Is(err, fs.ErrNotExist) {
			if err == nil {
				err = fmt.Errorf("%s is there already: move it away first", filepath.Join(dataDir, p))
			}
			return err
		}
	}
	for _, p := range parts {
		if err := copyDir(filepath.Join(backup, p), filepath.Join(dataDir, p)); err != nil {
			return err
		}
	}
	for _, p := range slices.Sorted(maps.Keys(of.Stores)) {
		if err := reaches(filepath.Join(dataDir, p, "log"), of.Stores[p]); err != nil {
			return err
		}
	}
	return nil
}

// reaches fails if the log in dir ends before last: a copy that was cut short can
// look like what a crash leaves.
func reaches(dir string, last ulid.ULID) error {
	l, err := log.Open(dir, log.Options{})
	if err != nil {
		return err
	}
	if end := l.Last(); end.Compare(last) < 0 {
		err = fmt.Errorf("the backup is damaged: %s ends with %s, and %s was in it", dir, end, last)
	}
	return errors.Join(err, l.Close())
}

// copyDir copies a directory of files and directories, durably.
func copyDir(from, to string) error {
	entries, err := os.ReadDir(from)
	if err != nil {
		return err
	}
	if err := disk.MakeDir(vfs.Default, to, 0o700); err != nil {
		return err
	}
	for _, e := range entries {
		do := copyFile
		if e.IsDir() {
			do = copyDir
		}
		if err := do(filepath.Join(from, e.Name()), filepath.Join(to, e.Name())); err != nil {
			return err
		}
	}
	return disk.SyncDir(vfs.Default, to)
}

func copyFile(from, to string) error {
	r, err := os.Open(from)
	if err != nil {
		return err
	}
	defer r.Close()
	w, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(w, r)
	return errors.Join(err, w.Sync(), w.Close())
}
