package turn

import (
	"errors"
	"sync"
)

var (
	errUserQuota  = errors.New("allocate: user has too many allocations")
	errTotalQuota = errors.New("allocate: server has too many allocations")
)

// A quota counts allocations, all and per user. Zero limits mean none.
type quota struct {
	total, perUser int // limits, set once

	mu    sync.Mutex // guards the following
	held  int
	users map[string]int
}

func newQuota(total, perUser int) *quota {
	return &quota{total: total, perUser: perUser, users: make(map[string]int)}
}

// acquire counts one allocation of user, or says which limit forbids it.
func (q *quota) acquire(user string) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	switch {
	case q.perUser > 0 && q.users[user] >= q.perUser:
		return errUserQuota
	case q.total > 0 && q.held >= q.total:
		return errTotalQuota
	}
	q.held++
	q.users[user]++
	return nil
}

// release gives back what acquire counted.
func (q *quota) release(user string) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.held--
	if q.users[user]--; q.users[user] <= 0 {
		delete(q.users, user)
	}
}

// count returns how many allocations and how many users there are.
func (q *quota) count() (allocations, users int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.held, len(q.users)
}
