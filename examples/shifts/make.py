"""Draws the three tables of this folder: people, shifts and a log. Nobody in them exists.

  python examples/shifts/make.py

A person wants a shift for its wards, hours, pay, place and what its text says of the work; a
hospital takes whom it finds qualified. Words are written as people write them, and cells are empty.
"""

import csv
import datetime
from pathlib import Path
import random

PEOPLE, SHIFTS, SHOWN = 120, 30, 12
GRADES = ('junior', 'senior', 'lead')
WARDS = ('Emergency', 'Intensive care', 'Paediatrics', 'Maternity', 'Surgery')
SKILLS = ('advanced life support', 'wound care', 'triage', 'ventilation', 'dialysis', 'infusions')
SHORT = {'advanced life support': 'ALS', 'wound care': 'Wound-Care'}
SITES = ('Harbour', 'Old Town', 'Hillside', 'North Gate')
LIKES = {
    'calm': ('I like an even pace and time for each patient.',
             'I work best where the hours are quiet and planned.',
             'Long talks at the bedside are why I do this.'),
    'busy': ('I like it when there is always something going on.',
             'I am at my best under pressure.',
             'Give me a full corridor and a phone that rings.')}
OFFERS = {
    'calm': ('A settled ward with few admissions and time to talk.',
             'Planned admissions, steady days.',
             'We see the same patients for weeks.'),
    'busy': ('Fast turnover, admissions around the clock.',
             'Expect a full house and quick decisions.',
             'The doors never stop; no two hours are alike.')}
STAGES = ('viewed', 'opened', 'applied', 'shortlisted', 'assigned')


def people(rng: random.Random) -> list[dict]:
  made = []
  for i in range(PEOPLE):
    grade = rng.choices(range(3), (4, 4, 2))[0]
    taste = rng.choice(('calm', 'busy'))
    skills = rng.sample(SKILLS, rng.randint(1, 4))
    made.append({
        'person': f'p{i + 1:03}', 'grade': GRADES[grade],
        'years': max(0, round(rng.gauss(2 + 5 * grade, 2))),
        'skills': [SHORT.get(s, s) if rng.random() < 0.3 else s for s in skills],
        'likes': rng.sample(WARDS, rng.randint(1, 3)), 'time': rng.choice(('day', 'night', 'any')),
        'pay': rng.randint(18, 30) + 3 * grade, 'home': rng.choice(SITES),
        'about': rng.choice(LIKES[taste]), '_taste': taste, '_grade': grade, '_has': skills})
  return made


def shifts(rng: random.Random) -> list[dict]:
  made = []
  for i in range(SHIFTS):
    grade = rng.choices(range(3), (5, 4, 1))[0]
    pace = rng.choice(('calm', 'busy'))
    made.append({
        'shift': f's{i + 1:02}', 'min grade': GRADES[grade],
        'min years': max(0, round(rng.gauss(1 + 4 * grade, 1))),
        'skills': rng.sample(SKILLS, rng.randint(1, 3)), 'ward': rng.choice(WARDS),
        'time': rng.choice(('day', 'night')), 'pay': rng.randint(20, 34) + 2 * grade,
        'site': rng.choice(SITES), 'text': rng.choice(OFFERS[pace]), '_taste': pace,
        '_grade': grade})
  return made


def stage(rng: random.Random, person: dict, shift: dict) -> str:
  """How far a person who was shown a shift came: what they wanted, then what was decided."""
  wish = (1.2 * (shift['ward'] in person['likes']) + 1.6 * (shift['_taste'] == person['_taste'])
          + 0.6 * (person['time'] in ('any', shift['time']))
          + 0.6 * (shift['site'] == person['home'])
          + 0.1 * (shift['pay'] - person['pay']) - 2.5 + rng.gauss(0, 0.5))
  has = len(set(shift['skills']) & set(person['_has'])) / len(shift['skills'])
  fit = (1.5 * (person['_grade'] >= shift['_grade']) + 0.3 * (person['years'] - shift['min years'])
         + 1.5 * has - 2 + rng.gauss(0, 0.5))
  if wish < 0:
    return STAGES[wish > -0.8]
  return STAGES[2 + (fit > 0) + (fit > 0.5)]


def write(name: str, rows: list[dict]) -> None:
  """Lists with '; ' between, no column that starts with '_'."""
  with open(Path(__file__).parent / name, 'w', encoding='utf-8', newline='') as file:
    writer = csv.writer(file, lineterminator='\n')
    writer.writerow([k for k in rows[0] if k[0] != '_'])
    writer.writerows(['; '.join(v) if isinstance(v, list) else v
                      for k, v in row.items() if k[0] != '_'] for row in rows)


def main() -> None:
  rng = random.Random(11)
  everybody, every = people(rng), shifts(rng)
  log = []
  for person in everybody:
    for shift in rng.sample(every, SHOWN):
      day = datetime.date(2025, 1, 6) + datetime.timedelta(days=rng.randrange(180))
      log.append({'date': day.isoformat(), 'person': person['person'], 'shift': shift['shift'],
                  'stage': stage(rng, person, shift)})
  for row in everybody + every:
    for key in ('years', 'min years', 'pay', 'home', 'about'):
      if key in row and rng.random() < 0.06:
        row[key] = ''
  write('people.csv', everybody)
  write('shifts.csv', every)
  write('log.csv', sorted(log, key=lambda row: row['date']))


if __name__ == '__main__':
  main()
