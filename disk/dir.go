package disk

import (
	"errors"
	"io/fs"
	"os"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// MakeDir makes dir and the parents that are missing, durably: a store in a
// directory whose own name is lost in a crash is lost too.
func MakeDir(fsys vfs.FS, dir string, perm os.FileMode) error {
	var parents []string // of what is to be made
	for d := dir; ; {
		if _, err := fsys.Stat(d); err == nil {
			break
		} else if !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		up := fsys.PathDir(d)
		if up == d {
			break
		}
		parents = append(parents, up)
		d = up
	}
	if err := fsys.MkdirAll(dir, perm); err != nil {
		return err
	}
	for _, p := range parents {
		if err := SyncDir(fsys, p); err != nil {
			return err
		}
	}
	return nil
}

// SyncDir makes the names in dir durable.
func SyncDir(fsys vfs.FS, dir string) error {
	d, err := fsys.OpenDir(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
