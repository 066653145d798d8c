package log

import (
	"context"
	"errors"
	"path"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
	"github.com/oklog/ulid/v2"
)

// TestSettle: while a write hangs, whoever must know what is in the log is told that
// it isn't settled, also after appends are taken again, and until the write is done.
func TestSettle(t *testing.T) {
	var hangs atomic.Bool
	reached, released := make(chan struct{}, 1), make(chan struct{})
	l := open(t, errorfs.Wrap(vfs.NewMem(), errorfs.InjectorFunc(func(op errorfs.Op) error {
		if hangs.Load() && op.Kind.ReadOrWrite() == errorfs.OpIsWrite && path.Ext(op.Path) == ".log" {
			select {
			case reached <- struct{}{}:
			default:
			}
			<-released
		}
		return nil
	})), nil)
	r := new(recorder)
	if err := l.Follow(r, nil); err != nil {
		t.Fatal(err)
	}
	hangs.Store(true)
	answer := make(chan error, 1)
	err := l.Append([]Entry{{Class: Audit, Event: message("a@h", "in doubt")}}, func(_ []ulid.ULID, err error) { answer <- err })
	if err != nil {
		t.Fatal(err)
	}
	<-reached
	l.Suspend("the test", syscall.EIO)
	if err := <-answer; !errors.Is(err, ErrSuspended) {
		t.Fatalf("the append is answered with %v", err)
	}
	ctx := context.Background()
	if err := l.Settle(ctx); !errors.Is(err, ErrSuspended) {
		t.Errorf("while an append is in doubt, all is settled: %v", err)
	}
	l.Suspend("the test", nil)
	settled := make(chan error)
	go func() { settled <- l.Settle(ctx) }()
	close(released)
	if err := <-settled; err != nil || r.Position() == (ulid.ULID{}) {
		t.Errorf("the write is done, and settling it gives %v with position %s", err, r.Position())
	}
	if err := l.Close(); err != nil {
		t.Error(err)
	}
}

// TestSettleBehind: while the log is suspended and a follower is behind what is durable,
// nobody is told that all is applied.
func TestSettleBehind(t *testing.T) {
	l := open(t, vfs.NewMem(), nil)
	defer l.Close()
	f := &slow{release: make(chan struct{})}
	if err := l.Follow(f, nil); err != nil {
		t.Fatal(err)
	}
	ctx := context.Background()
	if _, err := l.AppendWait(ctx, Entry{Event: message("a@h", "durable")}); err != nil {
		t.Fatal(err)
	}
	l.syncing <- struct{}{} // so that nothing is committed, and release finds it waiting
	l.Suspend("the test", syscall.EIO)
	if err := l.Settle(ctx); !errors.Is(err, ErrSuspended) {
		t.Errorf("a message is not applied, and all is settled: %v", err)
	}
	<-l.syncing
	close(f.release)
	if err := l.Await(); err != nil {
		t.Fatal(err)
	}
	l.Suspend("the test", nil)
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(time.Millisecond) {
		err := l.Settle(ctx) // those that were in doubt may be on their way still
		if err == nil {
			break
		}
		if !errors.Is(err, ErrSuspended) || time.Now().After(deadline) {
			t.Fatalf("all is applied, and settling it gives %v", err)
		}
	}
}
