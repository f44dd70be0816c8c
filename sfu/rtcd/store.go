package rtcd

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime/debug"
	"time"

	"go.etcd.io/bbolt"
)

// storeFile is the name of the database in the store's directory.
const storeFile = "clients.db"

// maxClients bounds the database: with self-registration anybody who reaches
// the port can add to it.
const maxClients = 10_000

var (
	errNotFound = errors.New("error: not found")
	errExists   = errors.New("already registered")
	errFull     = errors.New("too many clients are registered")
	errDamaged  = errors.New("the file is damaged: restore it, or remove it to let the clients register again")
)

// A store keeps the registered clients on disk: client ID → bcrypt hash of the
// key. Only one process can have it open. All methods are safe for concurrent
// use.
type store struct{ db *bbolt.DB }

// clientsBucket is the only bucket of the database.
const clientsBucket = "clients"

// openStore opens the database in dir. If it does not exist it is made when
// create is set; otherwise the result is nil.
func openStore(dir string, create bool) (*store, error) {
	name := filepath.Join(dir, storeFile)
	if !create {
		if dir == "" {
			return nil, nil
		}
		if _, err := os.Stat(name); errors.Is(err, fs.ErrNotExist) {
			return nil, nil
		}
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make client store: %w", err)
	}
	db, err := openDatabase(name)
	if err != nil {
		return nil, fmt.Errorf("open client store %s: %w", name, err)
	}
	err = db.Update(func(tx *bbolt.Tx) error {
		_, err := tx.CreateBucketIfNotExists([]byte(clientsBucket))
		return err
	})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open client store %s: %w", name, err), db.Close())
	}
	return &store{db}, nil
}

// openDatabase opens or makes a database. bbolt trusts what is on disk: of a file
// that a full disk or a broken copy has cut off it makes a panic or, being a
// memory map, a fault that ends the process, now or at some later read.
func openDatabase(name string) (db *bbolt.DB, err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if v := recover(); v != nil {
			err = fmt.Errorf("%w: %v", errDamaged, v)
		}
	}()
	if db, err = bbolt.Open(name, 0o600, &bbolt.Options{Timeout: time.Second}); err != nil {
		return nil, err
	}
	var want int64 // bytes in use
	if err := db.View(func(tx *bbolt.Tx) error { want = tx.Size(); return nil }); err != nil {
		return nil, errors.Join(err, db.Close())
	}
	if info, err := os.Stat(name); err != nil {
		return nil, errors.Join(err, db.Close())
	} else if info.Size() < want {
		return nil, errors.Join(fmt.Errorf("%w: it has %d bytes of %d", errDamaged, info.Size(), want), db.Close())
	}
	return db, nil
}

// hash returns the hash of a client's key, or nil if the client is unknown.
func (s *store) hash(client string) ([]byte, error) {
	var hash []byte
	err := s.db.View(func(tx *bbolt.Tx) error {
		hash = append(hash, tx.Bucket([]byte(clientsBucket)).Get([]byte(client))...)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read client store: %w", err)
	}
	return hash, nil
}

// add stores a new client; errExists and errFull are its refusals.
func (s *store) add(client string, hash []byte) error {
	return s.db.Update(func(tx *bbolt.Tx) error {
		b := tx.Bucket([]byte(clientsBucket))
		if b.Get([]byte(client)) != nil {
			return errExists
		}
		if b.Stats().KeyN >= maxClients {
			return errFull
		}
		if err := b.Put([]byte(client), hash); err != nil {
			return fmt.Errorf("write client store: %w", err)
		}
		return nil
	})
}

// remove deletes a client, or fails with errNotFound.
func (s *store) remove(client string) error {
	return s.db.Update(func(tx *bbolt.Tx) error {
		b := tx.Bucket([]byte(clientsBucket))
		if b.Get([]byte(client)) == nil {
			return errNotFound
		}
		if err := b.Delete([]byte(client)); err != nil {
			return fmt.Errorf("write client store: %w", err)
		}
		return nil
	})
}

func (s *store) close() error { return s.db.Close() }
