package rtcd

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"time"

	"golang.org/x/crypto/bcrypt"
)

const (
	minKey      = 32 // bytes of an auth key
	maxKey      = 72 // bcrypt does not look at more
	maxClientID = 64 // bytes

	tokenBytes    = 24 // make 32 characters of base64
	tokenLifetime = 24 * time.Hour
)

// What a refused credential is answered with. One text for an unknown client
// and for a wrong key, so that nobody learns which clients exist.
var (
	errNoCredential = errors.New("authentication failed: invalid auth header")
	errUnauthorized = errors.New("authentication failed: unauthorized")
	errCredential   = errors.New("authentication failed")
	errToken        = errors.New("authentication failed: token is invalid")
	errTokenExpired = errors.New("authentication failed: session is expired")
)

var errDeclared = errors.New("the client is declared in the configuration")

// accounts knows the clients: those declared in the configuration, whose keys
// are in memory, and those that registered themselves, whose keys are hashed in
// the store. A declared client hides a registered one of the same name.
type accounts struct {
	store   *store // nil = no client has ever registered, and none may
	hashing *hashQueues
	macKey  [32]byte         // keys of this process's memory of keys
	now     func() time.Time // time.Now, except in tests
	cost    int              // of bcrypt: its default, except in tests

	mu       sync.Mutex // guards the following
	declared map[string]digest
	verified map[string]digest // key that last matched the hash in the store, with that hash
	tokens   map[digest]token  // by digest of the token
	current  map[string]digest // each client's only token
}

// A digest stands for a secret in memory. Equal lengths and an unknown key make
// comparing digests as safe as comparing in constant time.
type digest [sha256.Size]byte

// A token is a bearer token that a client got from /login.
type token struct {
	client  string
	expires time.Time
}

func newAccounts(st *store, keys map[string][]byte) (*accounts, error) {
	a := &accounts{
		store: st, hashing: newHashQueues(), now: time.Now, cost: bcrypt.DefaultCost,
		verified: make(map[string]digest), tokens: make(map[digest]token), current: make(map[string]digest),
	}
	_, _ = rand.Read(a.macKey[:]) // never fails
	for id, key := range keys {
		if id == "" || len(id) > maxClientID {
			return nil, fmt.Errorf("declared client %.80q: the id must have 1 to %d bytes", id, maxClientID)
		}
		if len(key) < minKey {
			return nil, fmt.Errorf("declared client %q: the key has %d bytes, needs at least %d", id, len(key), minKey)
		}
	}
	a.setKeys(keys)
	return a, nil
}

func (a *accounts) digest(secrets ...string) digest {
	mac := hmac.New(sha256.New, a.macKey[:])
	for _, s := range secrets {
		fmt.Fprintf(mac, "%d:%s", len(s), s)
	}
	return digest(mac.Sum(nil))
}

// setKeys replaces the declared clients and returns those that are declared no
// longer. Keys too short to be safe count as not declared.
func (a *accounts) setKeys(keys map[string][]byte) (gone []string) {
	next := make(map[string]digest, len(keys))
	for id, key := range keys {
		if id != "" && len(key) >= minKey {
			next[id] = a.digest(string(key))
		}
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	for id, key := range next {
		if a.declared[id] != key {
			a.revoke(id)
		}
	}
	for id := range a.declared {
		if _, still := next[id]; !still {
			a.revoke(id)
			gone = append(gone, id)
		}
	}
	a.declared = next
	return gone
}

// revoke ends a client's token. It needs mu.
func (a *accounts) revoke(client string) {
	delete(a.tokens, a.current[client])
	delete(a.current, client)
}

// authenticate returns the client a request comes from, or one of the errors
// above.
func (a *accounts) authenticate(r *http.Request) (client string, err error) {
	if bearer, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer "); ok {
		return a.bearer(bearer)
	}
	client, key, ok := r.BasicAuth()
	switch {
	case !ok:
		return "", errNoCredential
	case client == "":
		return "", errUnauthorized
	}
	if err := a.verify(r.Context(), client, key); err != nil {
		return "", err
	}
	return client, nil
}

func (a *accounts) bearer(text string) (client string, err error) {
	d := a.digest(text)
	a.mu.Lock()
	defer a.mu.Unlock()
	t, known := a.tokens[d]
	if !known {
		return "", errToken
	}
	if a.now().After(t.expires) {
		return "", errTokenExpired
	}
	return t.client, nil
}

// verify checks a client's key. Every failure is errCredential.
func (a *accounts) verify(ctx context.Context, client, key string) error {
	a.mu.Lock()
	want, declared := a.declared[client]
	a.mu.Unlock()
	if declared {
		got := a.digest(key)
		if subtle.ConstantTimeCompare(got[:], want[:]) != 1 {
			return errCredential
		}
		return nil
	}
	// Compare would take a longer key for its first 72 bytes.
	if a.store == nil || client == "" || len(client) > maxClientID || len(key) > maxKey {
		return errCredential
	}
	hash, err := a.store.hash(client)
	if err != nil || len(hash) == 0 {
		return errCredential
	}
	return a.verifyHash(ctx, client, key, hash)
}

// verifyHash compares a key with its hash, which takes some 50 ms of CPU, or
// with the key that last proved right, which takes none: a client in use does
// not wait behind those who guess its key.
func (a *accounts) verifyHash(ctx context.Context, client, key string, hash []byte) error {
	d := a.digest(key, string(hash))
	known := func() bool {
		a.mu.Lock()
		defer a.mu.Unlock()
		return a.verified[client] == d
	}
	if known() {
		return nil
	}
	err := a.hashing.do(ctx, client, known, func() error {
		if err := bcrypt.CompareHashAndPassword(hash, []byte(key)); err != nil {
			return err
		}
		a.mu.Lock()
		defer a.mu.Unlock()
		a.verified[client] = d
		return nil
	})
	if err != nil {
		return errCredential
	}
	return nil
}

// login checks a client's key and returns a new token for it, which replaces
// the client's last one.
func (a *accounts) login(ctx context.Context, client, key string) (string, error) {
	if err := a.verify(ctx, client, key); err != nil {
		return "", err
	}
	random := make([]byte, tokenBytes)
	_, _ = rand.Read(random) // never fails
	text := base64.URLEncoding.EncodeToString(random)
	d := a.digest(text)
	a.mu.Lock()
	defer a.mu.Unlock()
	a.revoke(client)
	a.tokens[d] = token{client, a.now().Add(tokenLifetime)}
	a.current[client] = d
	return text, nil
}

// register adds a client to the store. The text of the error is part of the
// protocol.
func (a *accounts) register(ctx context.Context, client, key string) error {
	switch {
	case len(key) < minKey:
		return errors.New("key not long enough")
	case len(key) > maxKey:
		return bcrypt.ErrPasswordTooLong
	case client == "":
		return errors.New("error: empty key")
	case a.isDeclared(client):
		return errExists
	}
	if hash, err := a.store.hash(client); err != nil {
		return err
	} else if len(hash) > 0 {
		return errExists
	}
	if len(client) > maxClientID {
		return errors.New("failed to set key: error: key too large")
	}
	// All registrations share one queue, which no client ID can name.
	return a.hashing.do(ctx, "", func() bool { return false }, func() error {
		hash, err := bcrypt.GenerateFromPassword([]byte(key), a.cost)
		if err != nil {
			return err
		}
		return a.store.add(client, hash)
	})
}

// unregister removes a client from the store and ends its token.
// A declared client stays.
func (a *accounts) unregister(client string) error {
	if a.isDeclared(client) {
		return errDeclared
	}
	if err := a.store.remove(client); err != nil {
		return err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.revoke(client)
	delete(a.verified, client)
	return nil
}

func (a *accounts) isDeclared(client string) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	_, declared := a.declared[client]
	return declared
}
