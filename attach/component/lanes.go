package component

import "sync"

// lanes are what the workers have to do, in the order in which it came for each
// owner: a client that pipelines has its answers in that order (RFC 6120 section
// 10.1), and what follows a deletion finds nothing.
type lanes struct {
	next chan string // owners with something to do that no worker is at

	mu    sync.Mutex
	limit int // of those that wait, beside one for each worker
	n     int // what is not done yet
	jobs  map[string][]func()
}

func newLanes(workers, waiting int) *lanes {
	limit := workers + waiting
	return &lanes{next: make(chan string, limit), limit: limit, jobs: make(map[string][]func())}
}

// add returns false if too much is waiting already.
func (l *lanes) add(owner string, job func()) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.n == l.limit {
		return false
	}
	l.n++
	if l.jobs[owner] = append(l.jobs[owner], job); len(l.jobs[owner]) == 1 {
		l.next <- owner // there is room: no owner is in it twice
	}
	return true
}

// do does the first of owner's jobs, and then lets any worker do the next.
func (l *lanes) do(owner string, run func(job func())) {
	l.mu.Lock()
	job := l.jobs[owner][0]
	l.mu.Unlock()
	run(job)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.n--
	if l.jobs[owner] = l.jobs[owner][1:]; len(l.jobs[owner]) == 0 {
		delete(l.jobs, owner)
	} else {
		l.next <- owner
	}
}

// left is how much is not done.
func (l *lanes) left() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.n
}
