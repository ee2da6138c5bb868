"""`sonode dicom night`: pull -> score -> push, with one report and one exit code.

Start at `night`. A night has a date. Its images and boxes are those that no other night has
(`register`): two may run at once. Below the folder of the settings:

    images/                         what was pulled, and its ledgers
    images/night-DATE-KEY.parquet   the manifest of a night
    results/                        OUT of `sonode score --dicom`
    nights/register.parquet         which night has which images, and how far it is
    nights/DATE.json                the report of a night's last run
"""
