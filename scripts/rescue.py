#!/usr/bin/env python3
"""Restores Postgres from a Bygone repository without Bygone, by docs/format.md alone.

    rescue.py list    REPOSITORY                                   what is in it
    rescue.py restore REPOSITORY --to DATA --wal-to WAL            newest backup and all WAL after it
    rescue.py cat     REPOSITORY KEY                               one object's contents

REPOSITORY is a directory: the repository itself, or a copy of what its bucket holds. It is only read.
Needs Python 3.9 and the packages zstandard, and for an encrypted repository cryptography and (with a passphrase) argon2-cffi.
Debian: python3-zstandard python3-cryptography python3-argon2. With the package crc32c (python3-crc32c) it is many times faster.
"""

import argparse
import hashlib
import hmac
import json
import os
import shlex
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import zstandard

try:
    from crc32c import crc32c
except ImportError:
    TABLE = []
    for number in range(256):
        for _ in range(8):
            number = number >> 1 ^ (0x82F63B78 if number & 1 else 0)
        TABLE.append(number)

    def crc32c(data, crc=0, table=TABLE):
        """CRC-32C, byte by byte: a few MB a second. `crc` is that of the bytes before."""
        crc ^= 0xFFFFFFFF
        for byte in data:
            crc = crc >> 8 ^ table[(crc ^ byte) & 0xFF]
        return crc ^ 0xFFFFFFFF


WAL, HISTORY, BACKUP_HISTORY, INDEX, MANIFEST, DATA = 1, 2, 3, 4, 5, 6
HEADER, FOOTER, FRAME = 120, 224, 8


class Trouble(Exception):
    """What a person has to know; ends the program."""


def need(condition, message):
    if not condition:
        raise Trouble(message)


# ---------------------------------------------------------------- plain documents and keys


def document(path, what):
    """Reads a JSON document; its checksum covers all that stands before the checksum."""
    text = path.read_bytes()
    body = json.loads(text)
    need(body.get("bygone") == what, f"{path} is no {what} document")
    need(body["format"] == 1, f"{path} has format {body['format']}, this program reads 1")
    covered, found, _ = text.rpartition(b'  "crc32c": "')
    need(found and body["crc32c"] == f"{crc32c(covered):08x}", f"{path} is damaged: its checksum differs")
    return body


def hkdf(secret, salt, info, length):
    """HKDF-SHA-256 (RFC 5869)."""
    key = hmac.digest(salt, secret, "sha256")
    out, block = b"", b""
    while len(out) < length:
        block = hmac.digest(key, block + info + bytes([len(out) // 32 + 1]), "sha256")
        out += block
    return out[:length]


def decrypt(key, iv, data):
    """AES-256-CBC, PKCS#7. The MAC was checked before."""
    from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

    decryptor = Cipher(algorithms.AES(key), modes.CBC(iv)).decryptor()
    plain = decryptor.update(data) + decryptor.finalize()
    return plain[: -plain[-1]]


def unwrap(path, repository, secret):
    """The generation and data key of a key file, or None if the secret does not fit."""
    doc = document(path, "wrapped-key")
    need(doc["repository"] == repository, f"{path} belongs to another repository")
    kdf, salt = doc["kdf"], bytes.fromhex(doc["salt"])
    numbers = (0, 0, 0)
    master = secret
    if kdf["name"] == "argon2id":
        from argon2.low_level import Type, hash_secret_raw

        numbers = (kdf["memory_kib"], kdf["passes"], kdf["lanes"])
        need(numbers[0] <= 1 << 20 and numbers[1] <= 64 and numbers[2] <= 64, f"{path} asks for {kdf}")
        master = hash_secret_raw(secret, salt, numbers[1], numbers[0], numbers[2], 32, Type.ID, 0x13)
    else:
        need(kdf["name"] == "hkdf-sha256", f"{path} needs {kdf['name']}, which this program does not know")
    okm = hkdf(master, salt, b"bygone key wrap 1", 96)
    check, wrapped = bytes.fromhex(doc["check"]), bytes.fromhex(doc["wrapped"])
    if not hmac.compare_digest(okm[80:96], check):
        return None
    code = 1 if kdf["name"] == "argon2id" else 0
    covered = bytes.fromhex(repository) + struct.pack("<6I", doc["generation"], doc["number"], code, *numbers) + salt + check + wrapped
    tag = hmac.digest(okm[32:64], covered, "sha256")
    need(hmac.compare_digest(tag, bytes.fromhex(doc["tag"])), f"{path} is damaged: its MAC does not fit")
    return doc["generation"], decrypt(okm[:32], okm[64:80], wrapped)


class Repository:
    def __init__(self, path, secret):
        self.path = Path(path)
        need((self.path / "bygone.json").is_file(), f"there is no repository in {path}")
        identity = document(self.path / "bygone.json", "repository")
        self.id = identity["repository"]
        self.encrypted = identity["cipher"] != "none"
        self.keys = {}
        if self.encrypted:
            need(identity["cipher"] == "aes-256-cbc", f"the cipher is {identity['cipher']}, which this program does not know")
            need(secret, "the repository is encrypted: give --key-file, --key-command or the variable BYGONE_KEY")
            opened = (unwrap(path, self.id, secret) for path in sorted(self.path.glob("key/*-*.json")))
            self.keys = dict(key for key in opened if key)
            need(self.keys, "the secret does not fit any key of the repository")

    def open(self, key, kind):
        return Sealed(self, key, kind)

    def folders(self, cluster):
        """Folders of clusters, as keys."""
        found = sorted(self.path.glob(f"cluster/{cluster or '*'}/*-*/"))
        return [folder.relative_to(self.path).as_posix() for folder in found]

    def backups(self, folder):
        return sorted(path.parent.name for path in self.path.glob(f"{folder}/backup/*/manifest"))


# ---------------------------------------------------------------- sealed objects


class Sealed:
    """An object whose footer and table are checked. Chunks are checked as they are read."""

    def __init__(self, repository, key, kind):
        self.key, self.file = key, open(repository.path / key, "rb")
        size = os.fstat(self.file.fileno()).st_size
        need(size >= HEADER + FRAME + FOOTER, f"{key} is cut short")
        footer = self.at(size - FOOTER, FOOTER)
        need(footer[216:] == b"BYGONEFT", f"{key} does not end as an object does: damaged or cut short")
        version = struct.unpack_from("<H", footer, 208)[0]
        need(version == 1, f"{key} has format version {version}, this program reads 1")
        self.header = header = footer[:HEADER]
        need(header == self.at(0, HEADER), f"{key} is damaged: header and footer differ")
        self.main, self.aux = struct.unpack_from("<QQ", footer, 120)
        self.chunk, aux_chunk, generation = struct.unpack_from("<III", header, 20)
        chunks = -(-self.main // self.chunk) + -(-self.aux // aux_chunk)
        encrypted = header[18] == 1
        table_len = chunks * (4 if encrypted else 8)
        begin = size - FOOTER - table_len
        need(begin - FRAME >= HEADER, f"{key} is damaged: the table does not fit in")
        table = self.at(begin, table_len)
        need(crc32c(table + footer[:200]) == struct.unpack_from("<I", footer, 200)[0], f"{key} is damaged: the footer's CRC differs")

        need(header[32:48].hex() == repository.id, f"{key} belongs to another repository")
        need(header[80:112] == hashlib.sha256(key.encode()).digest(), f"{key} was written under another key")
        need(kind is None or header[19] == kind, f"{key} is of kind {header[19]}, not {kind}")
        need(encrypted == repository.encrypted, f"{key} is{'' if encrypted else ' not'} encrypted, the repository is otherwise")
        covered = header + b"F" + table + footer[HEADER:168]
        self.okm = None
        if encrypted:
            need(generation in repository.keys, f"{key} needs data key generation {generation}")
            self.okm = hkdf(repository.keys[generation], header[48:80], b"bygone sealed object 1" + header, 128)
            tag = hmac.digest(self.okm[32:64], covered, "sha256")
        else:
            tag = hashlib.sha256(covered).digest()
        need(hmac.compare_digest(tag, footer[168:200]), f"{key} was sealed with another key, or forged")

        self.entries, place = [], HEADER
        for entry in struct.iter_unpack("<I" if encrypted else "<II", table):
            self.entries.append((place, entry[0], entry[-1]))
            place += entry[0]
        need(place == begin - FRAME, f"{key} is damaged: the table's lengths do not add up")
        self.last = (None, b"")

    def at(self, offset, length):
        self.file.seek(offset)
        data = self.file.read(length)
        need(len(data) == length, f"{self.key} is cut short")
        return data

    def main_chunk(self, number):
        """Chunk `number` of the main stream, checked."""
        if self.last[0] == number:
            return self.last[1]
        offset, length, crc = self.entries[number]
        stored = self.at(offset, length)
        plain_len = min(self.chunk, self.main - number * self.chunk)
        place = f"{self.key}: chunk {number}"
        if self.okm:
            data, tag = stored[:-32], stored[-32:]
            last = (number + 1) * self.chunk >= self.main
            who = self.header + b"C" + struct.pack("<BQIB", 0, number, plain_len, last)
            need(hmac.compare_digest(hmac.digest(self.okm[32:64], who + data, "sha256"), tag), f"{place} is damaged")
            iv = hmac.digest(self.okm[64:96], struct.pack("<BQ", 0, number), "sha256")[:16]
            stored = decrypt(self.okm[:32], iv, data)
        else:
            need(crc32c(stored) == crc, f"{place} is damaged")
        plain = zstandard.ZstdDecompressor().decompress(stored, max_output_size=plain_len)
        need(len(plain) == plain_len, f"{place} has {len(plain)} bytes instead of {plain_len}")
        self.last = (number, plain)
        return plain

    def read(self, start=0, end=None):
        """Yields the bytes `start` to `end` of the main stream."""
        end = self.main if end is None else end
        need(start <= end <= self.main, f"{self.key} has {self.main} bytes, {end} were asked for")
        while start < end:
            number, skip = divmod(start, self.chunk)
            part = self.main_chunk(number)[skip : skip + end - start]
            yield part
            start += len(part)


# ---------------------------------------------------------------- what a person asks for


def manifest(repository, folder, label):
    """Header and entries of a backup."""
    sealed = repository.open(f"{folder}/backup/{label}/manifest", MANIFEST)
    lines = [json.loads(line) for line in b"".join(sealed.read()).splitlines() if line]
    header, entries = lines[0], lines[1:]
    need(header["format"] == "bygone-manifest" and header["version"] == 1, f"the manifest of {label} has version {header.get('version')}")
    need(len(entries) == header["entries"], f"the manifest of {label} has {len(entries)} entries, not {header['entries']}")
    return header, entries


def name(entry, field):
    """A path of an entry as the system's bytes."""
    return os.fsdecode(bytes.fromhex(entry[field])) if entry.get("hex") else entry[field]


def empty_directory(path):
    """Makes a directory for what is restored, or takes an empty one."""
    path = Path(path)
    need(not path.exists() or path.is_dir() and not any(path.iterdir()), f"{path} is not empty: nothing is written into it")
    path.mkdir(parents=True, exist_ok=True, mode=0o700)
    return path


def inside(root, relative):
    need(relative and not relative.startswith("/") and ".." not in relative.split("/"), f"{relative!r} leads out of the data directory")
    return root / relative


class Files:
    """Writes the files of a backup."""

    def __init__(self, repository, folder, header, options):
        self.repository, self.folder, self.header, self.options = repository, folder, header, options
        self.objects, self.spaces = {}, dict(item.split("=", 1) for item in options.tablespace)
        self.root = empty_directory(options.to)

    def write(self, entries):
        # Objects are read from front to back; directories come before what is in them, since entries are sorted by path.
        places = [entry for entry in entries if entry["type"] != "f"]
        files = [entry for entry in entries if entry["type"] == "f"]
        for entry in places:
            path = inside(self.root, name(entry, "path"))
            if entry["type"] == "l":
                path.symlink_to(self.tablespace(path.name, name(entry, "target")))
            elif entry["type"] == "d":
                path.mkdir(exist_ok=True)
            else:
                raise Trouble(f"{path} is of type {entry['type']}, which this program does not know")
        for entry in sorted(files, key=lambda entry: (entry.get("object", -1), entry.get("offset", 0))):
            self.file(inside(self.root, name(entry, "path")), entry)
        for entry in reversed(places):
            path = inside(self.root, name(entry, "path"))
            if entry["type"] == "d":
                path.chmod(int(entry["mode"], 8))
                os.utime(path, (entry["mtime"], entry["mtime"]))
        self.root.chmod(int(self.header["data_directory_mode"], 8))

    def file(self, path, entry):
        crc = 0
        with open(path, "xb") as out:
            if entry["size"]:
                start = entry["offset"]
                for part in self.object(entry["object"]).read(start, start + entry["size"]):
                    crc = crc32c(part, crc)
                    out.write(part)
        need(crc == int(entry["crc32c"], 16), f"{path}: the CRC differs from the manifest's")
        path.chmod(int(entry["mode"], 8))
        os.utime(path, (entry["mtime"], entry["mtime"]))

    def object(self, number):
        if number not in self.objects:
            self.objects = {number: self.repository.open(f"{self.folder}/backup/{self.header['label']}/data/{number}", DATA)}
        return self.objects[number]

    def tablespace(self, oid, original):
        """The new place of a tablespace."""
        if oid in self.spaces:
            return empty_directory(self.spaces[oid]).resolve()
        if self.options.tablespaces_to:
            return empty_directory(Path(self.options.tablespaces_to) / oid).resolve()
        raise Trouble(f"tablespace {oid} was in {original}: say where it shall be with --tablespace {oid}=DIR or --tablespaces-to DIR")


def write_wal(repository, folder, header, target):
    """Decodes every segment from the backup's start on, of all timelines, and the history files."""
    target = empty_directory(target)
    high, low = (int(part, 16) for part in header["start_lsn"].split("/"))
    size = header["wal_segment_size"]
    start = (high << 32 | low) // size
    segments = 0
    for path in sorted(repository.path.glob(f"{folder}/wal/*/*/*")):
        digits = path.name.split(".")[0]
        if int(digits[8:16], 16) * ((1 << 32) // size) + int(digits[16:], 16) >= start:
            decode(repository, path, WAL, target / path.name)
            segments += 1
    for path in sorted(repository.path.glob(f"{folder}/history/*.history")):
        decode(repository, path, HISTORY, target / path.name)
    return segments


def decode(repository, path, kind, out):
    with open(out, "xb") as file:
        for part in repository.open(path.relative_to(repository.path).as_posix(), kind).read():
            file.write(part)


def write_settings(root, wal, header, options):
    """backup_label, recovery.signal, and what Postgres needs to know."""
    (root / "backup_label").write_text(header["backup_label"], newline="")
    (root / "recovery.signal").touch()
    quoted = lambda text: "'" + text.replace("'", "''") + "'"
    source = shlex.quote(str(Path(wal).resolve())).replace("%", "%%")
    settings = {
        "restore_command": f'cp {source}/%f "%p"',
        "recovery_target_action": "promote",
        # It is a copy: it must not archive into the place that the original archives into.
        "archive_mode": "off",
        **dict(item.split("=", 1) for item in options.set),
    }
    with open(root / "postgresql.auto.conf", "a", encoding="utf-8") as file:
        file.write("\n# Written by rescue.py\n" + "".join(f"{key} = {quoted(value)}\n" for key, value in settings.items()))
    for part in ("backup_label", "recovery.signal", "postgresql.auto.conf"):
        (root / part).chmod(0o600)


def restore(repository, options):
    folder, label = choose(repository, options)
    header, entries = manifest(repository, folder, label)
    files = Files(repository, folder, header, options)
    files.write(entries)
    segments = write_wal(repository, folder, header, options.wal_to)
    write_settings(files.root, options.wal_to, header, options)
    if options.owner:
        subprocess.run(["chown", "-R", "-L", options.owner, "--", str(files.root), str(options.wal_to)], check=True)
    os.sync()
    print(f"backup {label} of {header['cluster']} (Postgres {header['major']}) is in {files.root}: {len(entries)} paths, {header['database_bytes']} bytes")
    print(f"{segments} WAL segments are in {options.wal_to}")
    print(f"now start Postgres {header['major']} on it as the owner of the files; it replays the WAL and then takes connections")


def choose(repository, options):
    """The folder and label that are meant: the newest, unless said otherwise."""
    found = [(label, folder) for folder in repository.folders(options.cluster) for label in repository.backups(folder)]
    found = [item for item in found if options.backup in ("latest", item[0])]
    need(found, f"there is no such backup in {repository.path}")
    names = {folder.split("/")[1] for _, folder in found}
    need(len(names) == 1, f"which cluster? --cluster {' or '.join(sorted(names))}")
    label, folder = max(found)
    return folder, label


def show(repository, options):
    for folder in repository.folders(options.cluster):
        segments = sorted(path.name for path in repository.path.glob(f"{folder}/wal/*/*/*"))
        print(folder)
        print(f"  {len(segments)} WAL segments" + (f", {segments[0]} to {segments[-1]}" if segments else ""))
        for label in repository.backups(folder):
            header, _ = manifest(repository, folder, label)
            print(f"  backup {label}: {header['database_bytes']} bytes, from {header['start_time']} to {header['stop_time']}, {header['start_lsn']} to {header['stop_lsn']}")
            for space in header["tablespaces"]:
                print(f"    tablespace {space['oid']} ({space['name']}) was in {space['path']}")


def cat(repository, options):
    shutil.copyfileobj(Parts(repository.open(options.key, None).read()), sys.stdout.buffer)


class Parts:
    """Lets pieces be copied like a file."""

    def __init__(self, parts):
        self.parts = parts

    def read(self, _length):
        return next(self.parts, b"")


def secret(options):
    """The first line of what was given."""
    if options.key_file:
        given = Path(options.key_file).read_bytes()
    elif options.key_command:
        given = subprocess.run(shlex.split(options.key_command), check=True, stdout=subprocess.PIPE).stdout
    else:
        given = os.environb.get(b"BYGONE_KEY", b"")
    return given.split(b"\n")[0].rstrip(b"\r")


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("repository", help="the repository's directory")
    common.add_argument("--key-file", metavar="FILE", help="file whose first line is the secret")
    common.add_argument("--key-command", metavar="COMMAND", help="command that prints the secret; or set BYGONE_KEY")
    common.add_argument("--cluster", metavar="NAME", help="only this cluster")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    listing = commands.add_parser("list", parents=[common], help="show clusters, WAL and backups")
    listing.set_defaults(run=show)
    copying = commands.add_parser("restore", parents=[common], help="write a data directory that Postgres starts on")
    copying.set_defaults(run=restore)
    copying.add_argument("--backup", default="latest", metavar="LABEL", help="which backup (default: the newest)")
    copying.add_argument("--to", required=True, metavar="DIR", help="the new data directory")
    copying.add_argument("--wal-to", required=True, metavar="DIR", help="where WAL is put for restore_command")
    copying.add_argument("--tablespace", action="append", default=[], metavar="OID=DIR", help="the new place of a tablespace")
    copying.add_argument("--tablespaces-to", metavar="DIR", help="put every other tablespace into DIR/OID")
    copying.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="a setting, such as recovery_target_time=…")
    copying.add_argument("--owner", metavar="USER[:GROUP]", help="give all of it to this user (as root)")
    printing = commands.add_parser("cat", parents=[common], help="print one object's contents")
    printing.set_defaults(run=cat)
    printing.add_argument("key", help="such as cluster/main/18-…/wal/00000001/00000000/000000010000000000000003")
    return parser.parse_args()


def main():
    options = arguments()
    try:
        options.run(Repository(options.repository, secret(options)), options)
    except (Trouble, OSError, zstandard.ZstdError, subprocess.CalledProcessError) as error:
        sys.exit(f"error: {error}")
    except ValueError as error:
        sys.exit(f"error: damaged JSON: {error}")
    except ImportError as error:
        sys.exit(f"error: a Python package is missing: {error.name}")


if __name__ == "__main__":
    main()
