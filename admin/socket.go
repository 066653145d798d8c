package admin

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"mamlog/admin/v1/adminv1connect"
)

// ErrNoServer is wrapped by Dial's error where no server listens.
var ErrNoServer = errors.New("no server answers")

// Listen listens on a Unix socket that only its owner, and root, can open. A
// socket that a dead server left is replaced, one that somebody answers at is
// not. The socket file is removed when the listener is closed.
func Listen(path string) (net.Listener, error) {
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("admin socket: %w", err)
	}
	if err := checkDir(dir); err != nil {
		return nil, err
	}
	if err := removeStale(path); err != nil {
		return nil, err
	}
	short, done, err := shorten(path)
	if err != nil {
		return nil, err
	}
	// Nobody else may connect even before the mode is set below. This is done
	// while the server starts, when nothing else makes files.
	mask := syscall.Umask(0o177)
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: short, Net: "unix"})
	syscall.Umask(mask)
	done()
	if err != nil {
		return nil, fmt.Errorf("admin socket %s: %w", path, err)
	}
	l.SetUnlinkOnClose(false)
	return &socket{UnixListener: l, path: path}, os.Chmod(path, 0o600)
}

// socket removes its file at the end.
type socket struct {
	*net.UnixListener
	path string
}

func (s *socket) Close() error {
	os.Remove(s.path)
	return s.UnixListener.Close()
}

// checkDir refuses a directory in which others could put a socket in place of
// ours: they would be told passwords.
func checkDir(dir string) error {
	info, err := os.Stat(dir)
	if err != nil {
		return fmt.Errorf("admin socket: %w", err)
	}
	if !info.IsDir() {
		return fmt.Errorf("admin socket: %s is not a directory", dir)
	}
	if info.Mode().Perm()&0o022 != 0 && info.Mode()&fs.ModeSticky == 0 {
		return fmt.Errorf("admin socket: others can write into the directory %s (its mode is %04o); take that away with chmod go-w, or set admin.socket elsewhere", dir, info.Mode().Perm())
	}
	return nil
}

func removeStale(path string) error {
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("admin socket: %w", err)
	}
	if info.Mode().Type() != fs.ModeSocket {
		return fmt.Errorf("admin socket: %s exists and is not a socket; remove it, or set admin.socket elsewhere", path)
	}
	c, err := connectTo(path)
	if err == nil {
		c.Close()
		return fmt.Errorf("admin socket: another server answers at %s; stop it, or set admin.socket elsewhere", path)
	}
	if !errors.Is(err, syscall.ECONNREFUSED) {
		return fmt.Errorf("admin socket: %w", err)
	}
	return os.Remove(path)
}

// maxPath is how long a socket's name can be for the kernel.
const maxPath = 100

// shorten gives a name for path that the kernel takes. done is called when it is
// no longer needed.
func shorten(path string) (short string, done func(), err error) {
	if len(path) <= maxPath {
		return path, func() {}, nil
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return "", nil, err
	}
	short = fmt.Sprintf("/proc/self/fd/%d/%s", dir.Fd(), filepath.Base(path))
	if _, err := os.Stat(filepath.Dir(short)); err != nil || len(short) > maxPath {
		dir.Close()
		return "", nil, fmt.Errorf("admin socket: the path %s is longer than %d bytes; set admin.socket to a shorter one", path, maxPath)
	}
	return short, func() { dir.Close() }, nil
}

func connectTo(path string) (net.Conn, error) {
	short, done, err := shorten(path)
	if err != nil {
		return nil, err
	}
	defer done()
	return net.DialTimeout("unix", short, 5*time.Second)
}

// Dial returns a client of the server that listens at path. Where none does, the
// error wraps ErrNoServer.
func Dial(path string) (adminv1connect.AdminServiceClient, error) {
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w at %s", ErrNoServer, path)
	}
	if err != nil {
		return nil, fmt.Errorf("admin socket: %w", err)
	}
	if err := checkDir(filepath.Dir(path)); err != nil {
		return nil, err
	}
	if err := checkOwner(path, info); err != nil {
		return nil, err
	}
	c, err := connectTo(path)
	if errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w at %s", ErrNoServer, path)
	}
	if errors.Is(err, fs.ErrPermission) {
		return nil, fmt.Errorf("admin socket %s: permission denied: only the user who runs the server, and root, may use it", path)
	}
	if err != nil {
		return nil, fmt.Errorf("admin socket: %w", err)
	}
	c.Close()
	return client(func(context.Context) (net.Conn, error) { return connectTo(path) }), nil
}

// checkOwner refuses a socket in a directory like /tmp that another user made.
func checkOwner(path string, info fs.FileInfo) error {
	dir, err := os.Stat(filepath.Dir(path))
	if err != nil {
		return err
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok || dir.Mode().Perm()&0o022 == 0 {
		return nil
	}
	if st.Uid != 0 && int(st.Uid) != os.Geteuid() {
		return fmt.Errorf("admin socket %s: it belongs to the user %s, in a directory that everybody can write to; set admin.socket elsewhere", path, userName(st.Uid))
	}
	return nil
}

func client(dial func(context.Context) (net.Conn, error)) adminv1connect.AdminServiceClient {
	t := &http.Transport{
		DialContext:        func(ctx context.Context, _, _ string) (net.Conn, error) { return dial(ctx) },
		DisableCompression: true,
	}
	return adminv1connect.NewAdminServiceClient(&http.Client{Transport: t}, "http://mamlog")
}
