package rtcd

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
)

// writerEnv names the directory of the store that TestStoreWriter writes to,
// and the number it begins with.
const (
	writerEnv     = "RTCD_TEST_STORE"
	writerFromEnv = "RTCD_TEST_FROM"
)

func clientName(i int) string { return fmt.Sprintf("client%06d", i) }

// clientHash is unlike that of any other client, and long enough to make the
// database grow.
func clientHash(i int) []byte { return fmt.Appendf(nil, "hash of %060d", i) }

// TestStoreWriter is no test but the process that TestStoreSurvivesAKill kills:
// it adds clients and tells of each once it is stored.
func TestStoreWriter(t *testing.T) {
	dir := os.Getenv(writerEnv)
	if dir == "" {
		return
	}
	from, err := strconv.Atoi(os.Getenv(writerFromEnv))
	if err != nil {
		t.Fatal(err)
	}
	st, err := openStore(dir, true)
	if err != nil {
		t.Fatal(err)
	}
	for i := from; ; i++ {
		if err := st.add(clientName(i), clientHash(i)); err != nil {
			t.Fatal(err)
		}
		fmt.Println("stored", i)
	}
}

// TestStoreSurvivesAKill kills the process that writes, wherever it is, again and
// again: whatever was said to be stored is there afterwards.
func TestStoreSurvivesAKill(t *testing.T) {
	dir := t.TempDir()
	next := 0
	for round := range 12 {
		next = writeUntilKilled(t, dir, next, 1+round*3)
		st, err := openStore(dir, true)
		if err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
		for i := range next {
			if hash, err := st.hash(clientName(i)); err != nil || string(hash) != string(clientHash(i)) {
				t.Fatalf("round %d: client %d of %d has the hash %q, %v", round, i, next, hash, err)
			}
		}
		for i := next; ; i++ { // stored, but killed before it said so
			if hash, _ := st.hash(clientName(i)); len(hash) == 0 {
				next = i
				break
			}
		}
		if err := st.close(); err != nil {
			t.Fatal(err)
		}
	}
}

// writeUntilKilled lets another process add clients until it has added some, and
// kills it in the middle of the next one. It returns the number of clients that
// are stored for certain.
func writeUntilKilled(t *testing.T, dir string, from, some int) int {
	t.Helper()
	cmd := exec.Command(os.Args[0], "-test.run=^TestStoreWriter$")
	cmd.Env = append(os.Environ(), writerEnv+"="+dir, writerFromEnv+"="+strconv.Itoa(from))
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	last, killed := -1, false
	for lines := bufio.NewScanner(out); lines.Scan(); {
		if _, err := fmt.Sscanf(lines.Text(), "stored %d", &last); err != nil {
			t.Errorf("the writer says %q", lines.Text())
		}
		if last >= from+some && !killed {
			killed = true
			if err := cmd.Process.Kill(); err != nil {
				t.Error(err)
			}
		}
	}
	_ = cmd.Wait() // killed
	if !killed {
		t.Fatalf("the writer ended by itself after client %d", last)
	}
	return last + 1
}

// TestStoreSurvivesATornWrite: the machine stops while the page that makes a
// change valid is being written. The store is as it was before.
func TestStoreSurvivesATornWrite(t *testing.T) {
	page := os.Getpagesize()
	for meta := range 2 { // they are written in turn
		dir := t.TempDir()
		st, err := openStore(dir, true)
		if err != nil {
			t.Fatal(err)
		}
		const clients = 20
		for i := range clients {
			if err := st.add(clientName(i), clientHash(i)); err != nil {
				t.Fatal(err)
			}
		}
		if err := st.close(); err != nil {
			t.Fatal(err)
		}
		f, err := os.OpenFile(filepath.Join(dir, storeFile), os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.WriteAt(make([]byte, 64), int64(meta*page+32)); err != nil {
			t.Fatal(err)
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
		if st, err = openStore(dir, true); err != nil {
			t.Fatalf("meta page %d torn: %v", meta, err)
		}
		for i := range clients - 1 { // the last one may be the one that was being written
			if hash, err := st.hash(clientName(i)); err != nil || string(hash) != string(clientHash(i)) {
				t.Errorf("meta page %d torn: client %d has the hash %q, %v", meta, i, hash, err)
			}
		}
		if err := st.close(); err != nil {
			t.Fatal(err)
		}
	}
}
